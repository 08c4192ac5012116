"""When a run writes for the first time: at its start, or once it has proved that it can resume."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ssl_lab import distributed
from ssl_lab.engine.callbacks.non_finite import StopOnNonFiniteLoss
from ssl_lab.outputs import unfinished_folder
from ssl_lab.runs.directory import BEST_CHECKPOINT, LAST_CHECKPOINT, read_json, update_summary
from ssl_lab.types import Batch

REPLACED = Path("replaced")
_CHECKPOINTS = Path("checkpoints")
_REMADE = ("report.html", "heartbeat.json")


class Beginning:
    """Actions that wait until the run has proved that it can resume.

    A run that is changed, or has finished before, may refuse its new settings, lack memory or fail in code of the user's at
    any moment up to its first step. Until then nothing is written, so that the run directory stays what it was.

    Args:
        run_dir: The run directory.
        waits: Whether to wait for the first step; else all is done at once.
        forced: Whether changes of the run are wanted.
        changes: Settings that differ from those of the run before, in words.
    """

    def __init__(
        self, run_dir: Path, *, waits: bool = False, forced: bool = False, changes: Sequence[str] = ()
    ) -> None:
        self.run_dir = run_dir
        self.done = not waits
        self.forced = forced
        self.changes = list(changes)
        self.step = 0  # of the checkpoint that the run resumes from
        self._waiting: list[Callable[[], Any]] = []

    def do(self, action: Callable[[], Any]) -> None:
        """Do it now, or in its turn when the run begins."""
        if self.done:
            action()
        else:
            self._waiting.append(action)

    def begin(self) -> None:
        """Run all waiting actions on all ranks; rank 0 first keeps a copy of the files that a change replaces."""
        if self.done:
            return
        distributed.on_first_rank(self._keep_and_follow)
        self.follow()

    def follow(self) -> None:
        """Run all waiting actions of this process after rank 0 has started."""
        self.done = True
        waiting, self._waiting = self._waiting, []
        for action in waiting:
            action()

    def _keep_and_follow(self) -> None:
        if self.changes:
            self._keep()
        self.follow()

    def _keep(self) -> None:
        """Keep the previous state in ``replaced/<n>``, itself a run directory, and record the changes in the summary.

        Both before the settings are written: started again after a kill, the run finds what of it is done.
        """
        recorded = read_json(self.run_dir / "summary.json").get("changes", [])
        change = f"at step {self.step}: {'; '.join(self.changes)} (before: {REPLACED}"
        if recorded and recorded[-1].startswith(f"{change}/"):
            return
        number = 1
        while any(f"{REPLACED / str(number)})" in before for before in recorded):
            number += 1
        kept = self.run_dir / REPLACED / str(number)
        if not kept.exists():  # else it was kept, but not recorded any more
            self._keep_in(kept)
        update_summary(self.run_dir, changes=[*recorded, f"{change}/{number})"])

    def _keep_in(self, kept: Path) -> None:
        try:
            with unfinished_folder(kept) as unfinished:
                self._copy(unfinished)
                unfinished.rename(kept)
        except OSError:
            with suppress(OSError):  # it holds former changes
                kept.parent.rmdir()
            raise

    def _copy(self, folder: Path) -> None:
        """Copy what makes the run a run: settings, facts, results, tokenizers, and its last and best checkpoint."""
        (folder / _CHECKPOINTS).mkdir(parents=True)
        for path in self.run_dir.iterdir():
            if path.is_file() and path.suffix in (".yaml", ".json", ".csv") and path.name not in _REMADE:
                shutil.copy2(path, folder)
            elif path.is_dir() and path.name.endswith("tokenizer"):
                shutil.copytree(path, folder / path.name)
        for path in (self.run_dir / _CHECKPOINTS).glob("*.ckpt"):
            if (
                path.name in (LAST_CHECKPOINT.name, BEST_CHECKPOINT.name)
                or not (self.run_dir / LAST_CHECKPOINT).is_file()
            ):
                _link(path, folder / _CHECKPOINTS / path.name)


class BeginAfterFirstStep(Callback):
    """Lets a run begin that waits for its first step. Stands before the callback that saves.

    Args:
        beginning: What waits.
        guard: Looks at the first loss.
    """

    def __init__(self, beginning: Beginning, guard: StopOnNonFiniteLoss) -> None:
        self.beginning = beginning
        self.guard = guard
        self._waits = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Wait on all ranks or on none: ranks that start later see what the first rank has started."""
        self._waits = distributed.broadcast_object(not self.beginning.done)
        if self._waits:
            self.beginning.done = False
        else:
            self.beginning.follow()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Begin after an optimizer step with a finite loss."""
        if not self._waits or ((batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch):
            return
        self.guard.check(trainer)
        self._waits = False
        self.beginning.begin()


def _link(source: Path, target: Path) -> None:
    """The same file under another name, which takes no room; a copy where file systems have no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
