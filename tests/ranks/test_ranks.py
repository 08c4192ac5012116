"""Three steps on 1, 2 and 4 gloo processes: the same losses, gradients and state as on the joined batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssl_lab.cli.paths import choices

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
# Each part's loss is logged over its own targets, whose number varies; the gradients are those of the joined batch.
OWN_COUNTS = {
    "mlm",
    "causal_lm",
    "span_denoising",
    "classification",
    "similarity",
    "token_classification",
    "translation",
}
CASES = sorted(path.stem for path in (HERE / "cases").glob("*.py"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    for world in (1, 2, 4):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
        script = [str(HERE / "steps_on_ranks.py"), str(folder)]
        done = subprocess.run([*command, *script], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
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


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_the_number_of_ranks_does_not_matter(name, world, folder):
    alone = torch.load(folder / f"{name}_1.pt", weights_only=True)
    check_equal(torch.load(folder / f"{name}_{world}.pt", weights_only=True), alone)


@pytest.mark.parametrize("num_parts", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_accumulating_over_parts_does_not_matter_where_it_is_allowed(name, num_parts, folder):
    if not (folder / f"{name}_whole.pt").is_file():
        return  # refused: see tests/contracts
    whole = torch.load(folder / f"{name}_whole.pt", weights_only=True)
    parts = torch.load(folder / f"{name}_parts_{num_parts}.pt", weights_only=True)
    if name in OWN_COUNTS:
        parts["losses"] = whole["losses"]
    check_equal(parts, whole)


def test_every_method_has_a_case():
    assert {*choices("method"), *choices("task"), "gan_batch_norm"} == set(CASES)
