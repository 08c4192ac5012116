"""The verdict of a training that has ended: what is poor, and what to change first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L

from ssl_lab.data.base import DataModule
from ssl_lab.engine.callbacks.collapse import CollapseAlarm
from ssl_lab.engine.steps import optimizer_steps_done
from ssl_lab.methods.base import Method
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.pretext.views import View
from ssl_lab.runs.directory import update_summary
from ssl_lab.runs.files import read_evaluation
from ssl_lab.runs.read import read_curves
from ssl_lab.verdict import Finding, Verdict, judged

_FEW_STEPS, _FEW_SLOW_STEPS = 500, 10_000
_FEW_NEGATIVES = 64  # samples of a batch


@dataclass(frozen=True, kw_only=True)
class Training:
    """Facts of a training that say what to change.

    Attributes:
        num_steps: Optimizer steps.
        length: The setting that limits it, ``trainer.max_epochs`` or ``trainer.max_steps``, and its value.
        num_samples: Samples that it learned from.
        batch_size: Samples of a batch.
        lr: Peak of the learning rate.
        contrasts: Whether samples of a batch are compared with each other.
        has_views: Whether it draws views of images.
        colours_grey: Whether these change colours that the images do not have.
        collapse_advice: The method's own.
        learns_slowly: The method's own.
    """

    num_steps: int
    length: tuple[str, int]
    num_samples: int
    batch_size: int
    lr: float
    contrasts: bool = False
    has_views: bool = False
    colours_grey: bool = False
    collapse_advice: str = ""
    learns_slowly: str = ""


def tell_verdict(
    method: Method, datamodule: DataModule, trainer: L.Trainer, run_dir: Path, objective: str | None
) -> Verdict:
    """Judge a run that has ended and keep the verdict in its ``summary.json``."""
    alarm = next((callback for callback in trainer.callbacks if isinstance(callback, CollapseAlarm)), None)  # type: ignore[attr-defined]
    collapse = ""
    if alarm is not None and alarm.collapsed_at is not None:
        collapse = f"since step {alarm.collapsed_at:,} {alarm.found}"
    curves = read_curves(run_dir, [])
    findings = judged(read_evaluation(run_dir, []) or {}, curves=curves, collapse=collapse, objective=objective or "")
    verdict = Verdict(findings=findings, remedy=remedy(findings, _training(method, datamodule, trainer)))
    update_summary(run_dir, verdict=verdict.to_json())
    return verdict


def _training(method: Method, datamodule: DataModule, trainer: L.Trainer) -> Training:
    views = [module for module in method.modules() if isinstance(module, View)]
    spec = method.encoder.spec
    grey = isinstance(spec, ImageSpec) and spec.shape[0] == 1
    by_steps = trainer.max_epochs in (None, -1)
    limit = trainer.max_steps if by_steps else trainer.max_epochs
    return Training(
        num_steps=optimizer_steps_done(trainer),
        length=("trainer.max_steps" if by_steps else "trainer.max_epochs", int(limit or 0)),
        num_samples=len(next(iter(datamodule.columns(datamodule.train_split).values()))),
        batch_size=datamodule.batch_size,
        lr=method.optim.lr,
        contrasts=method.min_samples > 1,
        has_views=bool(views),
        colours_grey=grey and any(max(view.saturation, view.hue, view.grayscale_prob) > 0 for view in views),
        collapse_advice=method.collapse_advice,
        learns_slowly=method.learns_slowly,
    )


def remedy(findings: Sequence[Finding], training: Training) -> str:
    """What to change first, the likeliest cause of the worst finding; empty where all is well."""
    kinds = {finding.kind for finding in findings}
    if not kinds:
        return ""
    if "collapsed" in kinds:
        return training.collapse_advice
    if training.num_samples < 2 * training.batch_size and training.num_steps < _FEW_STEPS and training.num_samples > 7:
        smaller = 2 ** int(math.log2(training.num_samples / 4))
        return (
            f"All {training.num_samples:,} samples make {math.ceil(training.num_samples / training.batch_size)} batch"
            f"{'es' * (training.num_samples > training.batch_size)}: set data.batch_size={smaller} for more steps in each "
            "epoch, and train longer."
        )
    few = _FEW_SLOW_STEPS if training.learns_slowly else _FEW_STEPS
    if training.num_steps < few or "unconverged" in kinds:
        factor = min(10, max(2, math.ceil(_FEW_STEPS / max(training.num_steps, 1))))
        setting, limit = training.length
        longer = f"train longer than {training.num_steps:,} steps, such as by {setting}={factor * limit}"
        why = training.learns_slowly if training.num_steps < few else ""
        return f"{why}: {longer}." if why else f"{longer[0].upper()}{longer[1:]}."
    if training.colours_grey:
        return (
            "Its views change colours, which grey images do not have: choose others, such as views@method.views=digits or "
            "views@method.views=fashion."
        )
    if training.contrasts and training.batch_size < _FEW_NEGATIVES:
        return f"Each sample is compared with few others: raise data.batch_size, now {training.batch_size}."
    views = ", or other views by views@method.views=" if training.has_views else ""
    return f"Try another optim.lr, now {training.lr:g}, such as {3 * training.lr:.2g} or {training.lr / 3:.2g}{views}."
