"""A run that is one trial of a study: it reports how well it does, and ends early if others do better."""

from __future__ import annotations

from collections.abc import Callable

import lightning as L
from lightning.pytorch.callbacks import Callback

from ssl_lab import distributed
from ssl_lab.engine.pruned import PrunedRunError
from ssl_lab.engine.steps import evaluation_due, is_last_epoch


class ReportObjective(Callback):
    """Reports the objective after each evaluation on the validation split, and stops where that is the advice.

    Stands after the callback that evaluates. Rank 0 alone speaks to the study. A run that has reached its last epoch is
    reported, but not stopped: nothing would be saved.

    Args:
        objective: Name of the metric, ``eval/...``.
        report: Takes the number of epochs done and the objective's value, and says whether to stop.
        every_n_epochs: Epochs between evaluations.
    """

    def __init__(self, objective: str, report: Callable[[int, float], bool], *, every_n_epochs: int) -> None:
        self.objective = objective
        self.report = report
        self.every_n_epochs = every_n_epochs

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the objective if this epoch was evaluated.

        Raises:
            PrunedRunError: If the answer was to stop.
        """
        measured = trainer.callback_metrics.get(self.objective)
        if measured is None or not evaluation_due(trainer, self.every_n_epochs):
            return
        epoch, value = trainer.current_epoch + 1, float(measured)
        stop = self.tell(trainer, epoch, value)
        if stop and not is_last_epoch(trainer):
            raise PrunedRunError(
                f"Pruned after epoch {epoch} with {self.objective} {value:.4g}: other trials do better."
            )

    def tell(self, trainer: L.Trainer, epoch: int, value: float) -> bool:
        """Report the value after so many epochs, and whether to stop; all ranks get one answer."""
        return bool(distributed.on_first_rank(lambda: self.report(epoch, value)))
