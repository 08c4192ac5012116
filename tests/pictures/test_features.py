"""Features without a plane to lie in have no map, and end no run."""

import pytest
import torch
from arrays import ArrayImages

from ssl_lab.pictures.features import feature_map, feature_pictures, projection


@pytest.mark.filterwarnings("ignore")  # of variances that are 0
@pytest.mark.parametrize("x", [torch.ones(40, 8), torch.zeros(40, 3), torch.arange(40.0).unsqueeze(1)])
def test_features_without_a_plane_have_no_map(x):
    assert projection(x, torch.zeros(40, dtype=torch.long), ()) is None


@pytest.mark.filterwarnings("ignore")
def test_features_with_a_plane_have_one():
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    drawn = projection(x, torch.zeros(40, dtype=torch.long), ())
    assert drawn.pixels.shape[2] == 4 and drawn.pixels[0, 0, 3] == 0, "the page shows through"
    assert drawn.caption.explanation.endswith("coloured by class.")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("draw", [projection, feature_map])
def test_the_caption_of_a_map_speaks_of_classes_only_if_there_are_labels(draw):
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.full((40,), -1)
    assert "class" not in draw(x, labels, ()).caption.explanation
    labels[3] = 0
    assert "class" in draw(x, labels, ("a",)).caption.explanation


def test_features_of_one_dimension_are_not_drawn():
    data = ArrayImages(num_samples=64)
    drawn = feature_pictures(
        lambda batch: batch["image"].float().mean((1, 2, 3)).unsqueeze(1), data, device=torch.device("cpu")
    )
    assert drawn == {}
