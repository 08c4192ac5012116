"""Warnings of Lightning about what ssl_lab has settled."""

from __future__ import annotations

import warnings

_SETTLED = {
    r"The '\w+' does not have many workers": "loaders take their number from data.num_workers; most need none",
    "Consider setting `persistent_workers=True`": "loaders are made by the data modules, not by the user",
    "Starting from v1.9.0, `tensorboardX`": "logger= chooses what is logged to; none is the default logger of Lightning",
    "The number of training batches .* is smaller than the logging interval": "the end of each epoch has its line",
    "It is recommended to use `self.log": "what is logged is a mean over ranks where that matters",
    "You called `self.log": "the user chose logger=none",
    "Checkpoint directory .* exists and is not empty": "a resumed run; its directory was checked before",
    "The dirpath has changed from": "a run directory may be moved; checkpoints are found by the run= that is given",
    "Experiment logs directory .* exists": "a resumed run",
    "The `srun` command is available": "a command on a login node is no mistake; processes that srun starts are counted",
    "You're resuming from a checkpoint that ended before the epoch ended": "loaders resume at the sample they stopped at",
    "Be aware that when using `ckpt_path`": "ssl_lab itself reports callbacks that differ from those of the run",
    r"Found \d+ module\(s\) in eval mode": "teachers and pretrained parts stay in eval mode by design",
    "Trying to infer the `batch_size`": "means over an epoch are weighted by ssl_lab",
    "GPU available but not used": "the user chose trainer.accelerator=cpu",
    "`isinstance.treespec, LeafSpec.` is deprecated": "a matter between torch and Lightning",
}
"""First words of Lightning's warnings that a user cannot act on, with the reason; all others are shown."""


def hide_settled_warnings() -> None:
    """Show none of these warnings from now on, and all others."""
    for beginning in _SETTLED:
        warnings.filterwarnings("ignore", message=beginning)
