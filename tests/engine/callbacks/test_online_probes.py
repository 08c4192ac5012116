"""Online probes against a probe trained by hand, and proof that training does not notice them."""

import inspect

import pytest
import torch
import torch.nn.functional as F
import yaml
from arrays import ArrayImages
from engine.callbacks import online_probes_on_ranks
from engine.callbacks.online_probes_on_ranks import probe_on_ranks
from engine.tiny import Noise, Tiny, TinyEncoder, fit, trainer
from forked import on_ranks
from lightning.pytorch.callbacks import Callback

from ssl_lab.cli.paths import config_dir
from ssl_lab.data.base import NoSuchSplitError
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.engine.callbacks.encoder_tap import EncoderTap
from ssl_lab.engine.callbacks.online_probes import OnlineProbes
from ssl_lab.methods.simclr import SimCLR
from ssl_lab.optim import SGD
from ssl_lab.pretext.views import TwoViews, View


class Partly(ArrayImages):
    """Every fourth row has no label."""

    def columns(self, split):
        columns = super().columns(split)
        return {**columns, "label": torch.where(torch.arange(self.num_samples) % 4 == 0, -1, columns["label"])}


class Recorder(Callback):
    """Features and labels of every step, and what was logged after it."""

    def __init__(self):
        self.steps, self.logged = [], []

    def on_fit_start(self, trainer, pl_module):
        self.tap = EncoderTap(pl_module.encoder)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append((self.tap.take(), batch["label"]))
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def simclr(spec):
    views = TwoViews(View(crop_scale=(0.5, 1.0), flip_prob=0.0))
    return SimCLR(ConvNet(spec, widths=(8, 16)), SGD(lr=0.1), views, hidden_dim=16, projection_dim=8)


def tiny(spec):
    return Tiny(TinyEncoder(spec), repel=1.0)


def train(folder, build, data, *callbacks, epochs=3, **settings):
    torch.manual_seed(0)
    method = build(data.spec)
    run = trainer(folder, *callbacks, epochs=epochs, **settings)
    fit(run, method, data)
    return method, run


@pytest.mark.parametrize("build", [simclr, tiny])
def test_training_ends_with_the_same_weights_and_random_stream_to_the_last_bit(build, tmp_path):
    ends = []
    for callbacks in ([], [OnlineProbes(every_n_epochs=1)]):
        method, _ = train(tmp_path, build, ArrayImages(), *callbacks)
        ends.append({**method.state_dict(), "random": torch.random.get_rng_state()})
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def probe_by_hand(steps, *, num_views, num_classes=2, lr=1e-3):
    """Accuracy on each batch before it was learned from, and the weights, by torch's own linear layer."""
    linear = torch.nn.Linear(steps[0][0].shape[1], num_classes)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    optimizer = torch.optim.AdamW(linear.parameters(), lr=lr, weight_decay=0.0)
    accuracies = []
    for features, labels in steps:
        labels = torch.cat([labels] * num_views)
        x, y = features[: len(labels)][labels >= 0], labels[labels >= 0]
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        accuracies.append(float((linear(x).argmax(1) == y).float().mean()))
        optimizer.zero_grad()
        F.cross_entropy(linear(x), y).backward()
        optimizer.step()
    return accuracies, torch.cat([linear.weight, linear.bias.unsqueeze(1)], 1).detach()


@pytest.mark.parametrize(("build", "num_views"), [(simclr, 2), (tiny, 1)])
def test_the_linear_probe_equals_one_trained_by_hand_without_the_unlabelled_rows(build, num_views, tmp_path):
    """Rows of all views for a method with views, and the first rows alone for others: they may encode anything."""
    probes, recorder = OnlineProbes(lr=1e-2), Recorder()
    train(tmp_path, build, Partly(), probes, recorder)
    accuracies, weights = probe_by_hand(recorder.steps, num_views=num_views, lr=1e-2)
    torch.testing.assert_close(probes.weights.data, weights, rtol=1e-4, atol=1e-5)
    logged = [step["online/linear/top1"] for step in recorder.logged]
    assert logged == pytest.approx(accuracies, abs=1e-6)
    assert logged[-1] > 0.9


def test_accuracy_is_the_mean_over_a_logging_interval(tmp_path):
    recorder = Recorder()
    train(tmp_path, tiny, ArrayImages(), OnlineProbes(lr=1e-2), recorder, log_every_n_steps=3)
    accuracies, _ = probe_by_hand(recorder.steps, num_views=1, lr=1e-2)
    assert recorder.logged[2]["online/linear/top1"] == pytest.approx(sum(accuracies[:3]) / 3)
    assert recorder.logged[11]["online/linear/top1"] == pytest.approx(sum(accuracies[9:12]) / 3)


def test_the_validation_split_is_scored_by_the_probe_of_the_moment(tmp_path):
    data, probes = Partly(), OnlineProbes(lr=1e-2, every_n_epochs=3)
    method, run = train(tmp_path, tiny, data, probes)
    rows = data.columns("val")
    x = F.layer_norm(method.encoder.eval().embed(rows), (8,))
    scores = x @ probes.weights[:, :-1].T + probes.weights[:, -1]
    known = rows["label"] >= 0
    expected = (scores.argmax(1) == rows["label"])[known].float().mean()
    assert float(run.callback_metrics["eval/online_linear/top1"]) == pytest.approx(float(expected))


def test_data_without_a_validation_split_is_watched_on_training_batches_alone(tmp_path):
    class NoVal(ArrayImages):
        def columns(self, split):
            if split == "val":
                raise NoSuchSplitError("There is no split 'val'.")
            return super().columns(split)

    _, run = train(tmp_path, tiny, NoVal(), OnlineProbes(every_n_epochs=1), epochs=1)
    assert "online/linear/top1" in run.callback_metrics
    assert "eval/online_linear/top1" not in run.callback_metrics


def test_neighbors_are_those_of_the_epoch_so_that_no_sample_meets_itself(tmp_path):
    """Labels by chance: who met itself in the last epoch would be right nearly always."""

    class Chance(Noise):
        def columns(self, split):
            label = torch.randint(0, 2, (self.num_samples,), generator=torch.Generator().manual_seed(1))
            return {**super().columns(split), "label": label}

    recorder = Recorder()
    data = Chance(num_samples=800)
    train(tmp_path, tiny, data, OnlineProbes(num_neighbors=1), recorder, epochs=2)
    assert "online/knn/top1" not in recorder.logged[0]
    later = [step["online/knn/top1"] for step in recorder.logged[60:]]
    assert 0.4 < sum(later) / len(later) < 0.6


def test_neighbors_vote_on_the_first_view_among_the_last_features(tmp_path):
    recorder = Recorder()
    train(tmp_path, simclr, ArrayImages(), OnlineProbes(num_neighbors=1, queue_size=24), recorder, epochs=1)
    (a, _), (b, _), (c, _), (x, y) = recorder.steps
    queue = F.normalize(torch.cat([a[:16], b[:16], c[:16]])[-24:], dim=1)
    labels = torch.cat([step[1] for step in recorder.steps[:3]])[-24:]
    expected = (labels[(F.normalize(x[:16], dim=1) @ queue.T).argmax(1)] == y).float().mean()
    assert recorder.logged[3]["online/knn/top1"] == pytest.approx(float(expected))


def test_data_without_labels_is_refused(tmp_path):
    with pytest.raises(ValueError, match="ArrayImages has none. Use callbacks=none"):
        train(tmp_path, tiny, ArrayImages(labels=False), OnlineProbes())


def test_a_method_that_runs_its_encoder_in_parts_is_refused(tmp_path):
    class InParts(Tiny):
        def training_step(self, batch, batch_idx):
            return self.log_losses(self.encoder.layers(batch["image"].float()).square().mean())

    with pytest.raises(ValueError, match="InParts does not run TinyEncoder as a whole"):
        train(tmp_path, lambda spec: InParts(TinyEncoder(spec)), ArrayImages(), OnlineProbes())


def test_two_ranks_train_the_probe_of_one(tmp_path):
    on_ranks(2, online_probes_on_ranks.main, tmp_path)
    expected = probe_on_ranks(tmp_path, world=1)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for found in (first, second):
        torch.testing.assert_close(found["weights"], expected["weights"], rtol=1e-5, atol=1e-7)
        assert found["metrics"] == pytest.approx(expected["metrics"], abs=1e-6)
    assert expected["metrics"].keys() >= {"online/linear/top1", "online/knn/top1", "eval/online_linear/top1"}


def test_the_settings_in_conf_are_the_defaults_of_the_signature():
    settings = yaml.safe_load((config_dir() / "callbacks/online_probes.yaml").read_text())["online_probes"]
    defaults = {name: p.default for name, p in inspect.signature(OnlineProbes).parameters.items()}
    assert settings.pop("every_n_epochs") == "${evaluate_every_n_epochs}"
    assert settings.pop("_target_") == f"{OnlineProbes.__module__}.OnlineProbes"
    assert settings == {name: value for name, value in defaults.items() if name != "every_n_epochs"}
