"""Runs on a GPU that has no float64, as Apple's: made of the CPU, see ``small_gpu.py``."""

import json
import re
from pathlib import Path

import pytest
import small_gpu
import torch
from forked import Fork

import ssl_lab
from ssl_lab.devices import keep_random_state, narrow, placed, wide

FEW = ["trainer=smoke", "trainer.accelerator=smallgpu", "trainer.strategy=smallgpu", "trainer.limit_train_batches=2"]
FEW += ["trainer.max_epochs=1", "trainer.max_steps=-1"]
RUNS = {
    "vae": ["experiment=vae_digits", "evaluation=[vae,label_free]", "baselines=false"],
    "simclr": ["experiment=simclr_digits", "evaluation=[features,label_free,label_free_views]", "baselines=false"],
    "mlm": ["experiment=mlm_python_docs", "evaluation=mlm", "data.batch_size=8", "encoder=bert_tiny"],
}


def on_small_gpu(*args, cwd):
    process = Fork(small_gpu.run_main, list(args), cwd=cwd)
    output = process.communicate(300)
    assert process.returncode == 0, "".join(output)[-3000:]
    return "".join(output)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_trains_judges_draws_and_resumes_without_float64(name, tmp_path):
    output = on_small_gpu("pretrain", *RUNS[name], *FEW, "run_dir=run", cwd=tmp_path)
    assert "SmallGPU x 1" in output and "Warning" not in output
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["status"] == "finished" and summary["hardware"] == "1 x smallgpu"
    assert list((tmp_path / "run/pictures").rglob("*.png"))
    if name == "vae":
        states = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["random_states"]
        assert set(states[0]) == {"cpu", "smallgpu"}
        longer = [*FEW, "trainer.max_epochs=2", "run_dir=run", "force=true"]
        again = on_small_gpu("pretrain", *RUNS[name], *longer, cwd=tmp_path)
        assert "resumed from last.ckpt" in again


def test_helpers_are_the_plain_calls_of_torch_where_there_is_float64():
    x = torch.rand(5, 3)
    assert torch.equal(wide(x), x.double())
    assert placed(wide(x), x.device).dtype == narrow(wide(x), x.device).dtype == torch.float64
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with keep_random_state(x.device):
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_else_widens_tensors_or_forks_streams():
    """Each would fail on an Apple GPU, or be decided in a second place."""
    own = re.compile(r"\.double\(\)|fork_rng\(|cuda\.synchronize\(|cuda\.is_available\(")
    wrong = [
        f"{path.name}: {line.strip()}"
        for path in Path(ssl_lab.__file__).parent.rglob("*.py")
        if path.name != "devices.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if own.search(line)
    ]
    assert not wrong
