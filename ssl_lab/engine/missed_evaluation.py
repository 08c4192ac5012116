"""The last evaluation of a run that was killed between its last step and its end."""

from __future__ import annotations

import lightning as L

from ssl_lab.engine.callbacks.evaluation import EvaluateDuringTraining
from ssl_lab.engine.callbacks.pictures import PicturesDuringTraining
from ssl_lab.engine.callbacks.trial import ReportObjective
from ssl_lab.engine.checkpoints.saving import KeepBest
from ssl_lab.engine.steps import optimizer_steps_done, steps_done
from ssl_lab.methods.base import Method


def missed_evaluation(trainer: L.Trainer, method: Method) -> dict[str, float] | None:
    """Run the last validation that a killed process missed; None if none is missing."""
    evaluations = [c for c in trainer.callbacks if isinstance(c, EvaluateDuringTraining)]  # type: ignore[attr-defined]
    if not evaluations or trainer.callback_metrics or evaluations[0].step == steps_done(trainer):
        return None
    metrics = evaluations[0].evaluate(method, evaluations[0].protocols)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, KeepBest):
            callback.look(trainer, metrics)
        if isinstance(callback, ReportObjective) and callback.objective in metrics:
            callback.tell(trainer, trainer.current_epoch, metrics[callback.objective])
    return metrics


def log_missed_evaluation(trainer: L.Trainer, method: Method, metrics: dict[str, float]) -> None:
    """Leave the metrics where the evaluation would have left them, and draw its pictures."""
    if metrics:
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=optimizer_steps_done(trainer) - 1)
        trainer.loggers[0].finalize("success")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, PicturesDuringTraining) and trainer.is_global_zero:
            callback.draw(trainer, method)
