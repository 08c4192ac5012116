"""Three steps on three gloo processes: the same losses, gradients and state as of one with the joined batch."""

from pathlib import Path

import pytest
import torch
from forked import on_ranks
from ranks import steps_on_ranks

from ssl_lab.cli.paths import choices

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
# Each part's loss is logged over its own targets, whose number varies; the gradients are those of the joined batch.
OWN_COUNTS = {
    "mlm",
    "causal_lm",
    "span_denoising",
    "classification",
    "image_classification",
    "semantic_segmentation",
    "similarity",
    "token_classification",
    "translation",
}
CASES = sorted(path.stem for path in (HERE / "cases").glob("*.py"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    for world in (1, 3):
        on_ranks(world, steps_on_ranks.main, folder)
    return folder


def relative_difference(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-9))


def check_equal(found, expected):
    assert torch.isfinite(expected["losses"]).all()
    assert relative_difference(found["losses"], expected["losses"]) < 1e-5
    assert found["gradients"].keys() == expected["gradients"].keys()
    for key, gradient in expected["gradients"].items():
        if gradient.norm() > 1e-7:  # a bias before batch normalisation has a gradient of exactly nothing
            assert relative_difference(found["gradients"][key], gradient) < 1e-5, key
    for key, value in expected["state"].items():
        torch.testing.assert_close(found["state"][key], value, rtol=1e-5, atol=1e-7, msg=key)


@pytest.mark.parametrize("name", CASES)
def test_the_number_of_ranks_does_not_matter(name, folder):
    alone, ranks = (torch.load(folder / f"{name}_{world}.pt", weights_only=True) for world in (1, 3))
    check_equal(ranks, alone)


@pytest.mark.parametrize("name", CASES)
def test_accumulating_over_parts_does_not_matter_where_it_is_allowed(name, folder):
    if not (folder / f"{name}_whole.pt").is_file():
        return  # refused: see tests/contracts
    whole = torch.load(folder / f"{name}_whole.pt", weights_only=True)
    parts = torch.load(folder / f"{name}_parts.pt", weights_only=True)
    if name in OWN_COUNTS:
        parts["losses"] = whole["losses"]
    check_equal(parts, whole)


def test_every_method_has_a_case():
    assert {*choices("method"), *choices("task"), "gan_batch_norm"} == set(CASES)
