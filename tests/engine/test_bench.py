import re

import lightning as L
import pytest
import torch
from arrays import ArrayImages, ArrayText
from contracts.test_methods import METHODS, build

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.engine.bench import bench
from ssl_lab.methods.simclr import SimCLR
from ssl_lab.optim import AdamW
from ssl_lab.pretext.views import TwoViews, View

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, of this short a training


def trainer(folder, max_steps):
    return L.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=max_steps,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_timed_in_parts_that_add_up(name, tmp_path):
    method, data = build(name)
    steps = 11 if method.automatic_optimization else 22
    speed = bench(method, data, trainer(tmp_path, steps), warmup_steps=1, num_steps=5)
    assert sum(speed.shares.values()) == pytest.approx(1)
    assert all(-0.02 < share < 1 for share in speed.shares.values()), speed.shares
    assert speed.shares["forward_backward"] > 0.05
    assert (speed.shares["views"] > 0) == any(True for _ in method.pretexts())
    assert speed.samples_per_sec == pytest.approx(16 / speed.step_ms * 1000)
    assert speed.ratio == pytest.approx(speed.step_ms / speed.bare_ms)
    assert 0 < speed.mfu < 1
    assert (speed.tokens_per_sec is not None) == ("attention_mask" in data.spec.columns)


def test_operations_are_those_of_the_layers(tmp_path):
    """Forward two per multiplication; backward twice that, but for the first layer, whose input needs no gradient."""
    data = ArrayImages()
    method = SimCLR(
        ConvNet(data.spec, widths=(8,)), AdamW(), TwoViews(View(blur_prob=0)), hidden_dim=16, projection_dim=4
    )
    speed = bench(method, data, trainer(tmp_path, 11), warmup_steps=1, num_steps=5)
    images = 2 * 16
    first, second = images * 64 * 9 * 1 * 8, images * 64 * 9 * 8 * 8
    projector = images * (8 * 16 + 16 * 4)
    similarities = images * images * 4
    expected = 2 * (2 * first + 3 * (second + projector + similarities))
    assert speed.step_tflop * 1e12 == pytest.approx(expected, rel=0.001)


def test_real_tokens_are_counted_without_padding(tmp_path):
    method, data = build("mlm")
    assert isinstance(data, ArrayText)
    speed = bench(method, data, trainer(tmp_path, 13), warmup_steps=1, num_steps=6)
    share = float((data.columns("pretrain")["input_ids"] != 0).float().mean())
    assert speed.tokens_per_sec / speed.samples_per_sec == pytest.approx(12 * share, rel=0.1)


def test_too_short_a_training_is_refused(tmp_path):
    method, data = build("simclr")
    with pytest.raises(ValueError, match="Lower num_steps"):
        bench(method, data, trainer(tmp_path, 3), warmup_steps=1, num_steps=5)
    assert torch.isfinite(method.last_loss)


def test_it_tells_how_long_it_takes_and_times_fewer_steps_where_they_are_slow(tmp_path, monkeypatch):
    method, data = build("simclr")
    waited = iter(range(10**6))
    monkeypatch.setattr("ssl_lab.engine.bench.time.perf_counter", lambda: float(next(waited)))  # a second a look
    told = []
    speed = bench(method, data, trainer(tmp_path, 45), warmup_steps=5, num_steps=20, max_sec=24, tell=told.append)
    assert speed.num_steps < 20
    plan, alone = told
    assert f"so {speed.num_steps} steps are timed in place of 20" in plan and "Timing takes about" in plan
    assert "Timing the encoder alone, 3 times" in alone
    assert sum(speed.shares.values()) == pytest.approx(1)


def test_without_a_bound_all_steps_are_timed(tmp_path):
    method, data = build("simclr")
    told = []
    speed = bench(method, data, trainer(tmp_path, 8), warmup_steps=0, num_steps=4, tell=told.append)
    assert speed.num_steps == 4
    assert re.fullmatch(r"A step takes about [\d.]+ m?s. Timing takes about [\d.]+ m?s\.", told[0])
