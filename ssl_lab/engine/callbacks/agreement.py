"""Agreement that all processes of a run need before they train together."""

from __future__ import annotations

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from ssl_lab import distributed


class Agreement(Callback):
    """Compares over ranks, before any weight is loaded, which run directory, checkpoint and data each has found.

    Processes that were started from outside look for them by themselves. One host without the checkpoint, because its
    disk is not shared, would start anew while the others resume.

    Args:
        run_dir: The run directory.
        checkpoint: The checkpoint to resume from; None to start anew.
        data: Fingerprint of the data.
    """

    def __init__(self, run_dir: Path, checkpoint: Path | None, data: dict[str, str]) -> None:
        splits = ", ".join(f"{split} {fact}" for split, fact in data.items())
        self.found = {"run_dir": str(run_dir), "checkpoint": str(checkpoint or "none"), "data": splits}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Compare.

        Raises:
            ValueError: Naming what the ranks have found.
        """
        for name, values in _by_name(distributed.gather_objects(self.found)).items():
            if len(set(values)) > 1:
                shown = ", ".join(f"rank {rank}: {value}" for rank, value in enumerate(values))
                raise ValueError(
                    f"The processes of a run have found different things for {name}: {shown}. Start all with the same "
                    "command and run_dir= on a disk that all hosts share."
                )


def _by_name(found: list[dict[str, str]]) -> dict[str, list[str]]:
    return {name: [facts[name] for facts in found] for name in found[0]}
