"""One step on 1, 2 and 4 gloo processes: the same loss, gradients and batch statistics as on the joined batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("step_on_ranks.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    for world in (1, 2, 4):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
        done = subprocess.run([*command, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


def relative_difference(a, b):
    return float((a - b).norm() / b.norm().clamp(min=1e-9))


@pytest.mark.parametrize("name", ["simclr", "mlm", "vae"])
def test_the_number_of_ranks_does_not_matter(name, folder):
    alone = torch.load(folder / f"{name}_1.pt", weights_only=True)
    assert torch.isfinite(alone["loss"])
    for world in (2, 4):
        joined = torch.load(folder / f"{name}_{world}.pt", weights_only=True)
        assert relative_difference(joined["loss"], alone["loss"]) < 1e-5
        assert joined["gradients"].keys() == alone["gradients"].keys()
        for key, gradient in alone["gradients"].items():
            if gradient.norm() > 1e-7:  # a bias before batch normalisation has a gradient of exactly nothing
                assert relative_difference(joined["gradients"][key], gradient) < 1e-5, key
        for key, buffer in alone["buffers"].items():
            torch.testing.assert_close(joined["buffers"][key], buffer, rtol=1e-5, atol=1e-7, msg=key)
