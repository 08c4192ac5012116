import warnings

import pytest
from engine.tiny import Noise, Tiny, TinyEncoder, fit, trainer

from ssl_lab.engine.callbacks.collapse import CollapseAlarm
from ssl_lab.engine.remedies import Training, remedy, tell_verdict
from ssl_lab.methods.mlm import MLM
from ssl_lab.runs.directory import read_json
from ssl_lab.verdict import Finding


def advice(*kinds, **facts):
    findings = [Finding(kind=kind, subject="kNN 1 %", verb="is", rest="poor") for kind in kinds]
    facts = {
        "num_steps": 20_000, "length": ("trainer.max_epochs", 50), "num_samples": 5000, "batch_size": 128, "lr": 1e-3,
        **facts,
    }  # fmt: skip
    return remedy(findings, Training(**facts))


@pytest.mark.parametrize(
    ("kinds", "facts", "words"),
    [
        ((), {}, ""),
        (("collapsed", "start"), {"collapse_advice": "Lower it."}, "Lower it."),
        (("start",), {"num_samples": 100, "num_steps": 30}, "All 100 samples make 1 batch: set data.batch_size=16 for more"),
        (("input",), {"num_steps": 100}, "Train longer than 100 steps, such as by trainer.max_epochs=250."),
        (("unconverged",), {}, "Train longer than 20,000 steps, such as by trainer.max_epochs=100."),
        (("input",), {"num_steps": 400, "length": ("trainer.max_steps", 400)}, "trainer.max_steps=800"),
        (
            ("frequencies",),
            {"num_steps": 2000, "learns_slowly": MLM.learns_slowly},
            "by context after thousands of steps: train longer than 2,000 steps",
        ),
        (("input",), {"colours_grey": True}, "which grey images do not have: choose others"),
        (("input",), {"contrasts": True, "batch_size": 16}, "raise data.batch_size, now 16"),
        (("input",), {}, "Try another optim.lr, now 0.001, such as 0.003 or 0.00033."),
        (("input",), {"has_views": True}, "or other views by views@method.views="),
    ],
)  # fmt: skip
def test_the_likeliest_cause_of_the_worst_finding_is_named(kinds, facts, words):
    found = advice(*kinds, **facts)
    assert words in found
    assert bool(found) == bool(words)


def test_a_collapsed_run_keeps_its_verdict(tmp_path):
    data = Noise()
    method = Tiny(TinyEncoder(data.spec))
    run = trainer(tmp_path, alarm := CollapseAlarm(), epochs=1)
    alarm.collapsed_at, alarm.found = 1234, "all features are alike"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(run, method, data)
    alarm.collapsed_at = 1234
    verdict = tell_verdict(method, data, run, tmp_path, None)
    assert str(verdict).startswith(
        "Poor result: the features have collapsed: since step 1,234 all features are alike. Lower"
    )
    assert read_json(tmp_path / "summary.json")["verdict"] == verdict.to_json()
    alarm.collapsed_at = None
    assert not tell_verdict(method, data, run, tmp_path, None)
