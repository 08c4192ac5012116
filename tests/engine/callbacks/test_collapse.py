import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from arrays import ArrayText
from engine.tiny import Noise, Tiny, TinyEncoder, fit, trainer
from lightning.pytorch.callbacks import Callback

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.engine.callbacks.collapse import CollapseAlarm, rank_of_differences
from ssl_lab.engine.callbacks.encoder_tap import EncoderTap


class Recorded(Callback):
    """The spread as it was logged, step by step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(float(trainer.callback_metrics["train/feature_std"]))


def train(folder, method=None, epochs=30, alarm=None, **settings):
    torch.manual_seed(0)
    data = Noise()
    recorded = Recorded()
    method = method or Tiny(TinyEncoder(data.spec), **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(trainer(folder, alarm or CollapseAlarm(), recorded, epochs=epochs), method, data)
    return recorded.values, [str(w.message) for w in caught if "collapsed" in str(w.message)]


def test_attraction_alone_collapses_and_is_reported_once(tmp_path):
    spread, messages = train(tmp_path)
    assert spread[0] > 0.1
    assert spread[-1] < 0.01
    (message,) = messages
    step = next(k for k, value in enumerate(spread, start=1) if value < 0.02)
    assert f"at step {step} all samples of a batch have nearly the same features" in message
    assert "Lower optim.lr" in message


def test_repulsion_prevents_it_and_nothing_is_said(tmp_path):
    spread, messages = train(tmp_path, repel=1.0)
    assert not messages
    assert min(spread) > 0.1


def judged(alarm, looks):
    """The warnings after an alarm has looked at some spreads, ten steps apart."""
    method = SimpleNamespace(collapse_advice="Wait.")
    stub = SimpleNamespace(fit_loop=SimpleNamespace(total_batch_idx=-1), progress_bar_callback=None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for std in looks:
            stub.fit_loop.total_batch_idx += 10
            alarm._judge(stub, method, std, 5.0)
    return [str(w.message) for w in caught]


def test_recovered_features_are_told_by_a_line_and_nothing_is_said_twice(capsys):
    alarm = CollapseAlarm()
    (message,) = judged(alarm, [0.3, 0.01, 0.015, 0.025])
    assert "at step 20 all samples" in message and "however low the loss is. Wait. " in message, "the method says what"
    assert alarm.collapsed_at == 20 and not capsys.readouterr().out, "0.025 may waver back"
    resumed = CollapseAlarm()
    resumed.load_state_dict(alarm.state_dict())
    assert not judged(resumed, [0.01, 0.4])
    assert capsys.readouterr().out == "Features have recovered at step 20: spread 0.4, effective rank 5.00.\n"
    assert resumed.collapsed_at is None
    assert not judged(resumed, [0.4, 0.01, 0.4, 0.01])
    assert not capsys.readouterr().out
    assert resumed.collapsed_at == 40, "what is said at the end is how it is then"


def test_a_method_whose_features_are_alike_at_first_is_given_time(tmp_path):
    method = Tiny(TinyEncoder(Noise().spec))
    method.alike_at_first = 0.75
    alarm = CollapseAlarm()
    spread, (message,) = train(tmp_path, method, epochs=30, alarm=alarm)
    late = 3 * len(spread) // 4
    assert min(spread[: late - 1]) < 0.02
    assert f"at step {late} " in message
    assert alarm.collapsed_at == late and "nearly the same" in alarm.found


def test_nothing_is_said_where_it_is_no_failure(tmp_path):
    method = Tiny(TinyEncoder(Noise().spec))
    method.may_collapse = False
    spread, messages = train(tmp_path, method)
    assert spread[-1] < 0.02
    assert not messages


def test_a_constant_encoder_is_reported_at_the_first_look(tmp_path):
    method = Tiny(TinyEncoder(Noise().spec))
    last = method.encoder.layers[-1]
    torch.nn.init.zeros_(last.weight)
    last.requires_grad_(False)
    _, messages = train(tmp_path, method, epochs=1)
    assert len(messages) == 1
    assert "at step 1 " in messages[0]


def test_features_along_one_line_are_reported(tmp_path):
    method = Tiny(TinyEncoder(Noise().spec), repel=1.0)
    last = method.encoder.layers[-1]
    with torch.no_grad():
        last.weight.copy_(torch.randn(8, 1) @ torch.randn(1, 16))
        last.bias.zero_()
    last.requires_grad_(False)
    spread, messages = train(tmp_path, method, epochs=1)
    assert min(spread) > 0.1, "the spread alone would not tell"
    assert len(messages) == 1
    assert "along a single direction" in messages[0]


def test_it_looks_at_logged_steps_alone_and_changes_nothing(tmp_path):
    data, weights = Noise(num_samples=160), []
    for callbacks in ([], [CollapseAlarm()]):
        torch.manual_seed(0)
        method = Tiny(TinyEncoder(data.spec), repel=1.0)
        passes = []
        method.encoder.register_forward_hook(lambda *call, passes=passes: passes.append(call))
        run = trainer(tmp_path, *callbacks, epochs=2, log_every_n_steps=7)
        fit(run, method, data)
        weights.append(method.state_dict())
        assert len(passes) == 20
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert "train/feature_std" in run.callback_metrics


def test_rank_of_differences_equals_its_definition_by_numpy():
    for shape in ((30, 5), (5, 30)):
        x = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
        unit = x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True)
        sigma = np.linalg.svd(unit - unit.mean(0), compute_uv=False)
        p = sigma[sigma > 1e-12] / sigma.sum()
        assert rank_of_differences(x) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)


def test_rank_of_differences_has_its_closed_forms():
    axes = torch.cat([torch.eye(6), -torch.eye(6)])
    assert rank_of_differences(axes) == pytest.approx(6, rel=1e-6)
    line = torch.randn(20, 1) * torch.ones(4)
    assert rank_of_differences(line) == pytest.approx(1, abs=1e-3)
    assert rank_of_differences(torch.cat([line, torch.randn(100, 4)]), num_samples=20) == rank_of_differences(line)


def test_the_tap_gives_the_first_training_pass_once():
    data = Noise()
    encoder = TinyEncoder(data.spec)
    batch = next(iter(data.eval_dataloader("val")))
    tap = EncoderTap(encoder)
    encoder.eval().embed(batch)
    assert tap.take() is None
    first = encoder.train().embed(batch)
    encoder.embed({"image": batch["image"][:2]})
    taken = tap.take()
    assert torch.equal(taken, first)
    assert not taken.requires_grad
    assert tap.take() is None
    encoder.embed(batch)
    tap.forget()
    assert tap.take() is None
    tap.remove()
    encoder.embed(batch)
    assert tap.take() is None


def test_the_tap_pools_hidden_states_as_the_encoder_does():
    data = ArrayText()
    encoder = TextTransformer(data.spec, size="tiny", dropout=0.0).train()
    batch = next(iter(data.eval_dataloader("val")))
    tap = EncoderTap(encoder)
    encoder(batch["input_ids"], batch["attention_mask"])
    torch.testing.assert_close(tap.take(), encoder.eval().embed(batch))
