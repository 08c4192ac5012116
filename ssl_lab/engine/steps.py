"""Counting steps and epochs of a trainer."""

from __future__ import annotations

import lightning as L


def steps_done(trainer: L.Trainer) -> int:
    """Batches trained on so far, whatever the number of optimizers."""
    return trainer.fit_loop.total_batch_idx + 1


def optimizer_steps_done(trainer: L.Trainer) -> int:
    """Steps as all files and loggers count them: of the optimizer, or batches where several optimizers take turns."""
    method = trainer.lightning_module
    return trainer.global_step if method is None or method.automatic_optimization else steps_done(trainer)


def log_interval(trainer: L.Trainer) -> int:
    """Steps between two logged rows."""
    return max(1, int(trainer.log_every_n_steps))  # type: ignore[attr-defined]


def is_last_epoch(trainer: L.Trainer) -> bool:
    """Return whether training ends with this epoch."""
    enough_steps = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    return enough_steps or trainer.current_epoch + 1 == trainer.max_epochs


def evaluation_due(trainer: L.Trainer, every_n_epochs: int) -> bool:
    """Return whether to evaluate on the validation split after this epoch: every n-th, and the last."""
    return (trainer.current_epoch + 1) % every_n_epochs == 0 or is_last_epoch(trainer)


def check_count(setting: str, number: int | None, *, none: str = "") -> None:
    """Refuse a number of epochs, batches or samples below 1.

    Args:
        setting: Its name.
        number: The number.
        none: What null stands for, where the setting may be null.

    Raises:
        ValueError: Naming the setting.
    """
    if number is None and none:
        return
    if number is None or number < 1:
        found = "null" if number is None else number
        raise ValueError(
            f"Cannot use {setting}={found}. Set it to 1 or more{f', or to null for {none}' if none else ''}."
        )
