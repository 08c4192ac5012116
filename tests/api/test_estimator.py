"""Networks of other libraries, trained by methods that are built by hand, and judged as they are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ssl_lab
from ssl_lab.data.image.digits import Digits
from ssl_lab.methods.simclr import SimCLR
from ssl_lab.methods.simsiam import SimSiam
from ssl_lab.optim import AdamW
from ssl_lab.pretext.views import TwoViews, View

RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 2
IMAGES = RNG.integers(0, 100, (60, 8, 8, 1), dtype=np.uint8)
IMAGES[LABELS == 0, :4] += 120
IMAGES[LABELS == 1, 4:] += 120
SMALL = {"trainer": "smoke", "data__batch_size": 8, "pictures_every_n_epochs": None}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def network():
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())


def views():
    return TwoViews(View(flip_prob=0.0))


def test_a_method_around_a_bare_network_is_fitted_as_an_estimator():
    trained = network()
    before = trained[0].weight.clone()
    method = SimCLR(trained, AdamW(lr=1e-2), views(), hidden_dim=8)
    assert method.fit(IMAGES, labels=LABELS, run_dir="fitted", **SMALL) is method and not method.training
    assert not torch.equal(trained[0].weight, before), "the network itself is trained"
    features = method.embed(IMAGES[:5])
    assert features.shape == (5, 8)
    np.testing.assert_allclose(method.embed(IMAGES[2:3])[0], features[2], atol=1e-5)
    assert {"evaluation.json", "report.html", "metrics.csv"} <= {path.name for path in Path("fitted").iterdir()}
    np.testing.assert_allclose(method.encoder.mean.item(), IMAGES.mean() / 255, atol=0.05)


def simsiam(lr=1e-3, prob=0.0):
    return SimSiam(network(), AdamW(lr=lr), TwoViews(View(flip_prob=prob)), hidden_dim=8, projection_dim=8)


def test_a_fit_resumes_in_its_directory_with_the_same_settings_or_by_force(capsys):
    settings = {**SMALL, "evaluation": "none", "run_dir": "again"}
    simsiam().fit(IMAGES, steps=2, **settings)
    same = simsiam()
    same.fit(IMAGES, steps=2, **settings)
    before = Path("again/fit.json").read_text()
    for method, data, steps, told in (
        (simsiam(), IMAGES, 5, "trainer.max_steps: 2, now 5"),
        (simsiam(lr=1e-2), IMAGES, 2, r"optim: AdamW\(lr=0.001.* now AdamW\(lr=0.01"),
        (simsiam(prob=0.5), IMAGES, 2, r"views\.\S*flip\S*: 0.0, now 0.5"),
        (simsiam(), IMAGES[::-1].copy(), 2, "data.path: "),
        (SimCLR(network(), AdamW(), views(), hidden_dim=8), IMAGES, 2, "method: SimSiam, now SimCLR"),
    ):
        with pytest.raises(ValueError, match=f"Cannot resume again: it holds a run with other settings: .*{told}"):
            method.fit(data, steps=steps, **settings)
    assert Path("again/fit.json").read_text() == before
    simsiam().fit(IMAGES, steps=5, force=True, **settings)
    assert len(Path("again/metrics.csv").read_text().splitlines()) >= 5
    assert "now 5" in Path("again/summary.json").read_text() and Path("again/replaced/1/fit.json").read_text() == before
    with pytest.raises(ValueError, match="Cannot resume again with another seed"):
        simsiam().fit(IMAGES, steps=5, seed=1, force=True, **settings)


def test_a_fit_leaves_no_directory_when_refused_and_touches_no_run_of_pretrain():
    with pytest.raises(ValueError, match=r"the training split has 49 samples"):
        simsiam().fit(IMAGES, run_dir="refused", **{**SMALL, "data__batch_size": 500})
    assert not Path("refused").exists()
    tiny = {"encoder": {"widths": [4, 8]}, "method__hidden_dim": 8, "evaluation": "none"}
    ssl_lab.pretrain(IMAGES, run_dir="other", **SMALL, **tiny)
    with pytest.raises(ValueError, match="it holds a run of ssl_lab.pretrain"):
        simsiam().fit(IMAGES, run_dir="other", **SMALL)


def test_what_a_method_keeps_of_its_settings_does_not_change_while_it_trains():
    from ssl_lab.cli.fitting import settings_of
    from ssl_lab.methods.byol import BYOL
    from ssl_lab.methods.nnclr import NNCLR

    for method in (
        BYOL(network(), AdamW(), views(), hidden_dim=8, projection_dim=8),
        NNCLR(network(), AdamW(), views(), hidden_dim=8, projection_dim=8, predictor_hidden_dim=8, queue_size=16),
    ):
        before = settings_of(method)
        method.fit(IMAGES, run_dir=type(method).__name__, **SMALL, evaluation="none")
        assert settings_of(method) == before


def test_a_network_in_eval_mode_is_trained_in_training_mode_but_for_its_frozen_parts():
    from ssl_lab.methods.byol import BYOL

    whole, part = network().eval(), nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Dropout()).eval()
    part[1].requires_grad_(False)
    kept = network()
    kept[1].eval()
    for given, modes, fits in ((whole, [True] * 3, 2), (part, [True, False, True], 1), (kept, [True, False, True], 1)):
        seen = []
        given[0].register_forward_hook(lambda *_, net=given, seen=seen: seen.append([m.training for m in net]))
        method = BYOL(given, AdamW(), views(), hidden_dim=8, projection_dim=8)
        for _ in range(fits):  # after a fit the method is in eval mode, and goes back for the next
            method.fit(IMAGES, steps=1, evaluation="none", **SMALL)
            assert modes in seen and not method.training
            seen.clear()
        assert [method.teacher.network[0].network[k].training for k in range(3)] == [False] * 3


def test_fit_takes_a_data_module_as_it_is():
    method = SimCLR(network(), AdamW(), views(), hidden_dim=8)
    method.fit(Digits(batch_size=64), evaluation="label_free", run_dir="module", trainer="smoke")
    assert "SimCLR encoder" in Path("module/evaluation.json").read_text()


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda: SimCLR(network(), torch.optim.Adam, views()), "Cannot train SimCLR with Adam: .*AdamW"),
        (lambda: SimCLR(network(), AdamW(), views()).fit(IMAGES, optim__lr=1), "Cannot set optim__lr in fit"),
        (lambda: SimCLR(network(), AdamW(), views()).fit(np.repeat(IMAGES, 3, -1)), "takes 1 channels"),
        (lambda: SimCLR(network(), AdamW(), views()).fit(Digits(), labels=[0]), "Cannot change a DataModule in fit"),
        (lambda: ssl_lab.pretrain(IMAGES, SimCLR(network(), AdamW(), views())), r"Call method.fit\(data\)"),
        (lambda: ssl_lab.evaluate(IMAGES, IMAGES), "Cannot judge a ndarray as a network"),
        (lambda: ssl_lab.evaluate(nn.Linear, IMAGES), "Cannot judge the class Linear"),
        (lambda: ssl_lab.evaluate(network(), ["a text", "another"] * 20), "not a language model of transformers"),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(act, told):
    with pytest.raises(ValueError, match=told):
        act()


def test_a_network_is_judged_beside_raw_input_and_itself_untrained():
    judged = network()
    state = {name: value.clone() for name, value in judged.state_dict().items()}
    rows = ssl_lab.evaluate(judged, IMAGES, labels=LABELS)
    assert list(rows) == ["raw pixels", "random encoder", "Sequential"] and "knn/top1" in rows["Sequential"]
    assert judged.training and all(torch.equal(state[name], value) for name, value in judged.state_dict().items())
    assert rows["Sequential"] == ssl_lab.evaluate(judged, IMAGES, labels=LABELS)["Sequential"]
    free = ssl_lab.evaluate(judged, IMAGES)
    assert "rankme/rank" in free["Sequential"] and "knn/top1" not in free["Sequential"]


def test_a_language_model_is_judged_on_texts_by_its_own_tokenizer():
    from transformers import BertConfig, BertModel

    from ssl_lab.data.text.tokenizer import train_tokenizer

    texts = [f"film number {k} is {'good' if k % 2 else 'bad'}" for k in range(60)]
    tokenizer = train_tokenizer("wordpiece", lambda: [texts], vocab_size=60, framing="encoder")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), **sizes))
    rows = ssl_lab.evaluate(model, texts, labels=LABELS, tokenizer=tokenizer, data__max_length=16)
    assert list(rows) == ["word counts", "random encoder", "BertModel"] and "knn/top1" in rows["BertModel"]
    small = BertModel(BertConfig(vocab_size=10, **sizes))
    with pytest.raises(ValueError, match="Give the model's own tokenizer"):
        ssl_lab.evaluate(small, texts, tokenizer=tokenizer)


def test_judging_leaves_frozen_layers_of_the_network_frozen():
    frozen = network()
    frozen[1].eval()
    ssl_lab.evaluate(frozen, IMAGES, labels=LABELS, evaluation="label_free")
    assert frozen.training and not frozen[1].training


def test_statistics_are_those_that_were_given_or_are_refused():
    from ssl_lab.encoders.network import Network

    assert Network(network(), mean=np.array([0.25]), std=np.array([0.5])).mean.item() == 0.25
    with pytest.raises(ValueError, match="mean= of 3 numbers: Sequential takes 1 channels"):
        Network(network(), mean=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="mean= has no effect on a Run"):
        ssl_lab.evaluate(ssl_lab.api.run.Run("nowhere"), IMAGES, mean=[0.1])
