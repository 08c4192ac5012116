"""Features for tests: clusters around class means, overlapping or apart, and pure noise."""

import torch

from ssl_lab.evaluation.protocol import FeatureSet


def clusters(*, spread, num_classes=4, dim=6, num_train=200, num_test=120, seed=0):
    """Gaussian clusters whose means have length one; a spread of 0.05 separates them, 1 does not."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.nn.functional.normalize(torch.randn(num_classes, dim, generator=generator), dim=1)

    def split(num_samples):
        y = torch.randint(0, num_classes, (num_samples,), generator=generator)
        return means[y] + spread * torch.randn(num_samples, dim, generator=generator), y

    (train_x, train_y), (test_x, test_y) = split(num_train), split(num_test)
    return FeatureSet(train_x=train_x, train_y=train_y, test_x=test_x, test_y=test_y, num_classes=num_classes)


def noise(**settings):
    """Features that know nothing of the labels."""
    features = clusters(spread=1.0, **settings)
    generator = torch.Generator().manual_seed(99)
    return FeatureSet(
        train_x=torch.randn(features.train_x.shape, generator=generator),
        train_y=features.train_y,
        test_x=torch.randn(features.test_x.shape, generator=generator),
        test_y=features.test_y,
        num_classes=features.num_classes,
    )
