"""Checks of a checkpoint against the settings that a run resumes with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch.optim.lr_scheduler import LambdaLR

from ssl_lab.data.fingerprint import changes
from ssl_lab.engine.beginning import Beginning
from ssl_lab.methods.base import Method

_PARTS: dict[str, type] = {
    **dict.fromkeys(("global_step", "epoch"), int),
    **dict.fromkeys(("data_position", "loops", "callbacks"), dict),
    **dict.fromkeys(("optimizer_states", "lr_schedulers"), list),
}
"""Parts of a checkpoint that a run resumes from beside its weights."""
_OPTIONAL: dict[str, Any] = {"data": dict | None, "optimizers": list | None}


def check_resumable(trainer: L.Trainer, method: Method, contents: Mapping[str, Any], run_dir: Path) -> None:
    """Refuse a checkpoint that this run cannot resume from.

    Raises:
        ValueError: If it lacks a part, belongs to another network, or is behind the length that is asked for.
    """
    check_is_whole(contents, run_dir)
    check_weights_fit(method, contents, run_dir)
    check_length(trainer, contents, run_dir)


def check_is_whole(contents: Mapping[str, Any], run_dir: Path) -> None:
    """Refuse a checkpoint that lacks a part needed to resume, such as one of another program.

    Raises:
        ValueError: Naming the part.
    """
    wrong = [name for name, kind in _PARTS.items() if not isinstance(contents.get(name), kind)]
    if not wrong:
        position, states = contents["data_position"], contents["optimizer_states"]
        wrong += ["data_position"] * any(not isinstance(position.get(key), int) for key in ("epoch", "batches_done"))
        wrong += ["optimizer_states"] * any(
            not isinstance(state, dict) or "param_groups" not in state for state in states
        )
        wrong += ["loops"] * ("fit_loop" not in contents["loops"])
        wrong += [name for name in ("data", "optimizers") if not isinstance(contents.get(name), _OPTIONAL[name])]
    if wrong:
        raise ValueError(
            f"Cannot resume {run_dir}: its checkpoint has no sound {wrong[0]}, which a run resumes from. Restore the "
            "checkpoint, or start a new run."
        )


def check_weights_fit(method: Method, contents: Mapping[str, Any], run_dir: Path) -> None:
    """Refuse a checkpoint of another network.

    Raises:
        ValueError: Naming a weight that differs.
    """
    saved, own = _shapes(contents["state_dict"]), _shapes(method.state_dict())
    wrong = [name for name in {**saved, **own} if saved.get(name) != own.get(name)]
    if wrong:
        shapes = [f"{shapes[wrong[0]]}" if wrong[0] in shapes else "missing" for shapes in (saved, own)]
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ValueError(
            f"Cannot resume {run_dir}: the weights of its checkpoint do not fit the network of these settings ({wrong[0]} is "
            f"{shapes[0]} in the checkpoint and {shapes[1]} in the network{more}). Restore the settings, or start a new run."
        )


def _shapes(weights: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors; values of ``get_extra_state`` may be anything and are left out."""
    return {name: tuple(value.shape) for name, value in weights.items() if not name.endswith("_extra_state")}


def check_length(trainer: L.Trainer, contents: Mapping[str, Any], run_dir: Path) -> None:
    """Refuse a length that the run has passed.

    Raises:
        ValueError: Naming both.
    """
    position = contents["data_position"]
    epochs_begun = position["epoch"] + (position["batches_done"] > 0)
    for key, asked, done in (
        ("max_steps", trainer.max_steps, contents["global_step"]),
        ("max_epochs", trainer.max_epochs, epochs_begun),
    ):
        if asked is not None and 0 <= asked < done:
            raise ValueError(
                f"Cannot resume {run_dir} with trainer.{key}={asked}: its checkpoint is at {done}. Choose {done} or more, or "
                "start a new run."
            )


def check_data_are_same(contents: Mapping[str, Any], data: dict[str, str], beginning: Beginning, run_dir: Path) -> None:
    """Refuse data other than those of the checkpoint, unless the change is forced; then it is remembered.

    Raises:
        ValueError: Naming the splits that differ.
    """
    found = changes(contents.get("data", data), data)
    if not found:
        return
    if not beginning.forced:
        raise ValueError(
            f"Cannot resume {run_dir}: its data changed ({found}) since the checkpoint. Restore the data or start a new run; "
            "force=true resumes with the new data."
        )
    beginning.changes.append(f"data: {found}")


class ConfiguredOptimizers(Callback):
    """A resumed run updates its weights by the settings of its configuration, not by those that its checkpoint holds.

    Lightning restores learning rate, decay, momentum and the base of the schedule with the optimizer's state. Here the
    settings that the optimizers were built with come back. Another ``lr`` is a new peak: its schedule starts at the step
    reached and takes the steps that are left. With the same ``lr`` the rate is that of the schedule at the step reached, and
    with unchanged settings every number stays the same.

    Args:
        contents: The checkpoint; None for a new run.
        run_dir: The run directory, for messages.
    """

    def __init__(self, contents: Mapping[str, Any] | None, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._saved = None
        self._schedule_start: dict[str, Any] | None = (
            None  # where a new peak began: the step, and that of each schedule
        )
        if contents is not None:
            self._schedule_start = contents.get("schedule_start")
            sizes = [
                [len(group["params"]) for group in state["param_groups"]] for state in contents["optimizer_states"]
            ]
            self._saved = contents.get("optimizers"), sizes

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember the settings, before the checkpoint replaces them.

        Raises:
            ValueError: If the checkpoint holds the state of other optimizers.
        """
        self._groups = [
            [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]
        if self._saved is None:
            return
        names, sizes = self._saved
        own_names = _names(trainer)
        own_sizes = [[len(group["params"]) for group in optimizer.param_groups] for optimizer in trainer.optimizers]
        if (names or own_names) != own_names or sizes != own_sizes:
            raise ValueError(
                f"Cannot resume {self.run_dir}: its checkpoint holds the state of {_described(names, sizes)}, but these "
                f"settings ask for {_described(own_names, own_sizes)}. Restore optim= and method=, or start a new run."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the settings back.

        Raises:
            ValueError: If the rate was changed and follows a schedule that cannot be asked for another base.
        """
        if self._saved is None:
            return
        schedules = {id(config.scheduler.optimizer): config.scheduler for config in trainer.lr_scheduler_configs}
        peaks = [[group.get("initial_lr") for group in optimizer.param_groups] for optimizer in trainer.optimizers]
        if peaks != [[settings.get("initial_lr") for settings in groups] for groups in self._groups]:
            steps = [config.scheduler.last_epoch for config in trainer.lr_scheduler_configs]
            self._schedule_start = {"step": trainer.global_step, "schedules": steps}
        for optimizer, groups in zip(trainer.optimizers, self._groups, strict=True):
            schedule = schedules.get(id(optimizer))
            for group, settings in zip(optimizer.param_groups, groups, strict=True):
                if isinstance(schedule, LambdaLR) or schedule is None:
                    group.update(settings)
                    continue
                if settings.get("initial_lr") != group.get("initial_lr"):
                    raise ValueError(
                        f"Cannot resume {self.run_dir} with another learning rate: {type(schedule).__name__} cannot change "
                        "its base. Restore optim.lr, or start a new run."
                    )
                group.update({name: value for name, value in settings.items() if name != "lr"})
        self._shift(trainer)
        for schedule in schedules.values():
            if isinstance(schedule, LambdaLR):
                _set_rates(schedule)

    def _shift(self, trainer: L.Trainer) -> None:
        """Have the schedules begin where a new peak did, and run through in the steps that were left then."""
        start, total = self._schedule_start, trainer.estimated_stepping_batches
        if start is None or start["step"] >= total:
            return
        for config, step in zip(trainer.lr_scheduler_configs, start["schedules"], strict=True):
            if isinstance(config.scheduler, LambdaLR):
                factors = config.scheduler.lr_lambdas
                config.scheduler.lr_lambdas = [_later(factor, step, 1 - start["step"] / total) for factor in factors]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store which optimizers the states belong to, and where their schedules began."""
        checkpoint["optimizers"] = _names(trainer)
        if self._schedule_start is not None:
            checkpoint["schedule_start"] = self._schedule_start


def _later(factor: Callable[[Any], float], start: int, share: float) -> Callable[[int], float]:
    """A schedule that begins at step ``start`` and takes a share of its steps."""
    return lambda step: factor((step - start) / share)


def _set_rates(schedule: LambdaLR) -> None:
    """The rates of a schedule at the step that it has reached, from the base rates of its optimizer."""
    groups = schedule.optimizer.param_groups
    schedule.base_lrs = [group["initial_lr"] for group in groups]
    for group, base, factor in zip(groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = base * factor(schedule.last_epoch)
    schedule._last_lr = [group["lr"] for group in groups]


def _names(trainer: L.Trainer) -> list[str]:
    return [type(optimizer).__name__ for optimizer in trainer.optimizers]


def _described(names: list[str] | None, sizes: list[list[int]]) -> str:
    """Optimizers in words."""
    known = names or ["an optimizer"] * len(sizes)
    return " and ".join(
        f"{name} over {' + '.join(map(str, size))} tensors" for name, size in zip(known, sizes, strict=True)
    )
