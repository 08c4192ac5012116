import pytest
import torch
from arrays import ArrayImages
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import polynomial_kernel
from torch import nn

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.evaluation.knn import KNN
from ssl_lab.evaluation.protocol import extract
from ssl_lab.evaluation.raw import raw_features
from ssl_lab.evaluation.samples import SampleQuality, frechet_distance, kernel_distance
from ssl_lab.types import Encoder

CPU = torch.device("cpu")


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(mean, std, *, num_samples=50, seed=0):
    """Samples whose mean and covariance diag(std^2) are exact."""
    x = randn(num_samples, len(mean), seed=seed)
    x = x - x.mean(0)
    white = torch.linalg.qr(x).Q * (num_samples - 1) ** 0.5
    return white * torch.tensor(std, dtype=torch.float64) + torch.tensor(mean, dtype=torch.float64)


def frechet_by_scipy(x, y):
    cov_x, cov_y = torch.cov(x.T).numpy(), torch.cov(y.T).numpy()
    root = sqrtm(cov_x @ cov_y).real
    return float((x.mean(0) - y.mean(0)).square().sum()) + float((cov_x + cov_y - 2 * root).trace())


def test_frechet_distance_of_gaussians_with_the_same_axes_has_a_closed_form():
    mean_x, std_x = [0.0, 1.0, -2.0], [1.0, 2.0, 0.5]
    mean_y, std_y = [1.0, 1.0, 2.0], [1.0, 0.1, 3.0]
    expected = sum((a - b) ** 2 for a, b in zip(mean_x + std_x, mean_y + std_y, strict=True))
    found = frechet_distance(with_moments(mean_x, std_x), with_moments(mean_y, std_y, num_samples=70, seed=1))
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("counts", [(40, 60), (9, 60)])
def test_frechet_distance_equals_the_matrix_root_of_scipy(counts):
    mix = randn(8, 8, seed=3)
    x, y = randn(counts[0], 8) @ mix, randn(counts[1], 8, seed=1) + 0.3
    assert frechet_distance(x, y) == pytest.approx(frechet_by_scipy(x, y), rel=1e-6)


def test_frechet_distance_with_fewer_samples_than_features():
    x, y = randn(10, 30), randn(12, 30, seed=1)
    cov_x, cov_y = torch.cov(x.T), torch.cov(y.T)
    trace = torch.linalg.eigvals(cov_x @ cov_y).real.clamp(min=0).sqrt().sort().values[-9:].sum()
    expected = float((x.mean(0) - y.mean(0)).square().sum() + cov_x.trace() + cov_y.trace() - 2 * trace)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_is_symmetric_and_zero_to_itself():
    x, y = randn(40, 8), 2 * randn(50, 8, seed=1)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-10)


def test_kernel_distance_equals_scikit_learns_kernel_without_the_diagonal():
    x, y = randn(20, 5), randn(20, 5, seed=1) + 0.5
    within = 0.0
    for z in (x, y):
        k = polynomial_kernel(z, degree=3, gamma=1 / 5, coef0=1)
        within += (k.sum() - k.trace()) / (20 * 19)
    expected = within - 2 * polynomial_kernel(x, y, degree=3, gamma=1 / 5, coef0=1).mean()
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)  # every subset is the whole


def test_kernel_distance_is_unbiased():
    """Its mean over pairs of sets from one distribution is 0, within three standard errors."""
    pairs = [(randn(30, 5, seed=k), randn(30, 5, seed=1000 + k)) for k in range(200)]
    found = torch.tensor([kernel_distance(x, y, num_subsets=1) for x, y in pairs])
    assert abs(float(found.mean())) < 3 * float(found.std()) / 200**0.5
    assert found.min() < 0


def test_kernel_distance_of_subsets_is_near_that_of_all():
    x, y = randn(300, 5), randn(300, 5, seed=1) + 0.5
    whole = kernel_distance(x, y, num_subsets=1)
    assert kernel_distance(x, y, num_subsets=1000, subset_size=50) == pytest.approx(whole, rel=0.05)
    assert kernel_distance(x, y, subset_size=50) == kernel_distance(x, y, subset_size=50)


class FromImages:
    """A generator that draws stored images, and remembers what it was asked for."""

    def __init__(self, images):
        self.images = images.float() / 255
        self.counts = []

    def __call__(self, num_samples, generator):
        self.counts.append(num_samples)
        return self.images[torch.randint(len(self.images), (num_samples,), generator=generator)]


def score(images, *, datamodule=None, split="test", **settings):
    settings = {"num_samples": 200, **settings}
    return SampleQuality(**settings).run(FromImages(images), datamodule or ArrayImages(), device=CPU, split=split)


def test_real_images_beat_noise_and_reach_the_floor():
    datamodule = ArrayImages(num_samples=300)
    real = score(datamodule.columns("val")["image"], datamodule=datamodule)
    noise = score(torch.randint(0, 256, (300, 1, 8, 8), dtype=torch.uint8), datamodule=datamodule)
    assert set(real) == {
        "frechet/pixels_n200",
        "frechet/pixels_n200_real",
        "kid/pixels_n200",
        "kid/pixels_n200_real",
        "samples/class_share_0",
        "samples/class_share_1",
        "samples/min_class_share",
        "samples/classifier_top1",
    }
    for name in ("frechet/pixels_n200", "kid/pixels_n200"):
        assert noise[f"{name}_real"] == real[f"{name}_real"]
        assert noise[name] > 3 * real[name]
    assert real["frechet/pixels_n200"] == pytest.approx(real["frechet/pixels_n200_real"], rel=0.5)


def test_distances_are_those_of_the_pixels():
    datamodule = ArrayImages()
    train, real = (datamodule.columns(split)["image"].flatten(1) / 255 for split in ("train", "test"))
    found = score(torch.zeros(1, 1, 8, 8), num_samples=64, datamodule=datamodule)
    spread = real - real.mean(0)
    expected = real.mean(0).square().sum() + spread.square().sum() / 63  # the samples have no spread
    assert found["frechet/pixels_n64"] == pytest.approx(float(expected), rel=1e-5)
    assert found["frechet/pixels_n64_real"] == pytest.approx(frechet_distance(train, real), rel=1e-6)


def test_classes_of_samples_are_counted():
    columns = ArrayImages().columns("train")
    both = score(columns["image"], num_samples=1000)
    assert both["samples/class_share_0"] == pytest.approx(0.5, abs=0.06)
    assert both["samples/classifier_top1"] == 1.0
    collapsed = score(columns["image"][columns["label"] == 1])
    assert collapsed["samples/class_share_1"] == 1.0
    assert collapsed["samples/min_class_share"] == collapsed["samples/class_share_0"] == 0.0


def test_the_classifier_is_a_vote_of_five_neighbors():
    class Faint(ArrayImages):
        def columns(self, split):
            columns = super().columns(split)
            image = columns["image"].float() - 40 * (columns["image"] > 100)
            return {**columns, "image": (0.5 * image).round().byte()}

    datamodule = Faint(num_samples=100)
    features = extract(raw_features(datamodule.spec), datamodule, device=CPU)
    expected = float((KNN().predict(features, 5) == features.test_y).double().mean())
    found = score(datamodule.columns("train")["image"], datamodule=datamodule)
    assert found["samples/classifier_top1"] == pytest.approx(expected)


def test_samples_are_drawn_in_batches_from_one_seeded_stream():
    generator = FromImages(ArrayImages().columns("train")["image"])
    protocol = SampleQuality(num_samples=1200, seed=3)
    first = protocol.run(generator, ArrayImages(), device=CPU)
    assert generator.counts == [500, 500, 200]
    assert protocol.run(generator, ArrayImages(), device=CPU) == first
    assert SampleQuality(num_samples=1200, seed=4).run(generator, ArrayImages(), device=CPU) != first


def test_samples_are_rounded_to_stored_levels_and_cut_to_the_range():
    images = ArrayImages().columns("train")["image"].float()
    images[:, :, 0, :4] = 255
    off = images + 0.4
    off[:, :, 0, :4] = 300
    assert score(off) == score(images)


def test_unlabelled_data_has_distances_alone():
    datamodule = ArrayImages(labels=False)
    found = score(datamodule.columns("train")["image"], datamodule=datamodule)
    assert {name.split("/")[0] for name in found} == {"frechet", "kid"}


def test_unlabelled_rows_vote_for_nothing():
    class Partly(ArrayImages):
        def columns(self, split):
            columns = super().columns(split)
            return {**columns, "label": torch.where(torch.arange(self.num_samples) % 4 == 2, -1, columns["label"])}

    found = score(ArrayImages().columns("train")["image"], datamodule=Partly(), num_samples=1000)
    assert found["samples/class_share_0"] == pytest.approx(0.5, abs=0.06)
    assert found["samples/classifier_top1"] == 1.0


def test_the_floor_of_sorted_data_sees_every_class():
    class Sorted(ArrayImages):
        def columns(self, split):
            columns = super().columns(split)
            order = columns["label"].argsort(stable=True)
            return {name: column[order] for name, column in columns.items()}

    datamodule = Sorted(num_samples=400)
    train, real = (datamodule.columns(split)["image"].flatten(1) / 255 for split in ("train", "test"))
    found = score(torch.zeros(1, 1, 8, 8), datamodule=datamodule)
    assert found["frechet/pixels_n200_real"] < 0.1 * frechet_distance(train[:200], real)


def test_a_named_encoder_is_used_in_eval_mode():
    class Noisy(Encoder):
        def __init__(self, spec):
            super().__init__()
            self.spec, self.embed_dim = spec, 64
            self.dropout = nn.Dropout(0.5)

        def embed(self, batch):
            return 2 * self.dropout(batch["image"].flatten(1) / 255)

    images = ArrayImages().columns("train")["image"]
    pixels = score(images)
    found = score(images, encoder=Noisy(ArrayImages().spec), encoder_name="noisy")
    assert found["frechet/noisy_n200"] == pytest.approx(4 * pixels["frechet/pixels_n200"], rel=1e-5)


def test_runs_with_a_convolutional_encoder():
    encoder = ConvNet(ArrayImages().spec, widths=(8, 16))
    found = score(ArrayImages().columns("train")["image"], encoder=encoder, encoder_name="convnet")
    assert all(torch.isfinite(torch.tensor(list(found.values()))))
    assert "kid/convnet_n200_real" in found


def test_an_encoder_needs_a_name_of_its_own():
    with pytest.raises(ValueError, match="named 'pixels', but the features are ConvNet"):
        SampleQuality(encoder=ConvNet(ArrayImages().spec, widths=(8,)))
    with pytest.raises(ValueError, match="named 'resnet', but the features are raw pixels"):
        SampleQuality(encoder_name="resnet")


def test_one_sample_has_no_covariance():
    with pytest.raises(ValueError, match="num_samples=1"):
        SampleQuality(num_samples=1)
