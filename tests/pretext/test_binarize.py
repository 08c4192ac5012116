import pytest
import torch

from ssl_lab.pretext.binarize import Binarize


@pytest.fixture
def x():
    return torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))


INDEX = torch.arange(50)


@pytest.mark.parametrize("how", ["stochastic", "static", "threshold"])
@pytest.mark.parametrize("training", [True, False])
def test_pixels_are_black_or_white(how, training, x):
    out = Binarize(how).train(training)(x, INDEX)
    assert out.shape == x.shape and out.dtype == x.dtype
    assert set(out.unique().tolist()) == {0.0, 1.0}


def test_none_leaves_greys(x):
    assert torch.equal(Binarize("none")(x), x)


def test_threshold_cuts_in_the_middle():
    assert Binarize("threshold")(torch.tensor([[0.0, 0.49, 0.5, 1.0]])).tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("training", [True, False])
def test_a_grey_value_is_the_probability_of_white(training):
    grey = torch.full((2000, 1, 4, 4), 0.3)
    grey[:, :, :2] = 0.9
    out = Binarize("stochastic").train(training)(grey, torch.arange(2000))
    assert out[:, :, 2:].mean().item() == pytest.approx(0.3, abs=0.015)  # six standard errors
    assert out[:, :, :2].mean().item() == pytest.approx(0.9, abs=0.01)
    between = torch.corrcoef(out[:, 0].flatten(1).T).fill_diagonal_(0)
    assert between.abs().max() < 0.12  # pixels are drawn independently


def test_black_and_white_stay():
    pixels = torch.tensor([0.0, 1.0]).expand(100, 2)
    assert torch.equal(Binarize("stochastic")(pixels), pixels)
    assert torch.equal(Binarize("static")(pixels, torch.arange(100)), pixels)


def test_training_draws_anew_and_evaluation_does_not(x):
    binarize = Binarize("stochastic")
    assert not torch.equal(binarize(x, INDEX), binarize(x, INDEX))
    binarize.eval()
    whole = binarize(x, INDEX)
    order = torch.tensor([31, 4, 7])
    assert torch.equal(binarize(x[order], INDEX[order]), whole[order])
    assert not torch.equal(binarize(x, INDEX + 1), whole)


def test_static_draws_are_those_of_evaluation(x):
    assert torch.equal(Binarize("static").train()(x, INDEX), Binarize("stochastic").eval()(x, INDEX))


def test_errors(x):
    with pytest.raises(ValueError, match="Choose from none, stochastic, static, threshold"):
        Binarize("dither")
    with pytest.raises(ValueError, match="no column 'index'"):
        Binarize("static")(x)
