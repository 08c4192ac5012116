"""ssl_lab: self-supervised pretraining with masked, contrastive and generative objectives.

The package imports nothing heavy before it is used. Train, judge and open runs by name::

    import ssl_lab

    ssl_lab.pretrain(method, data, trainer, evaluation=ssl_lab.Evaluation([KNN()]))
    method, data = ssl_lab.open_run("runs/mine")

and import methods, encoders and data from the modules that hold them::

    from ssl_lab.data.image.digits import Digits
    from ssl_lab.encoders.convnet import ConvNet
    from ssl_lab.methods.simclr import SimCLR
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ssl_lab.runs.moved import FormerNames

if TYPE_CHECKING:
    from ssl_lab.cli.open_run import open_run
    from ssl_lab.engine.callbacks.evaluation import Evaluation
    from ssl_lab.engine.callbacks.pictures import Pictures
    from ssl_lab.engine.checkpoints.saving import Saving
    from ssl_lab.engine.pretrain import pretrain
    from ssl_lab.evaluation.evaluate import evaluate

__all__ = ["Evaluation", "Pictures", "Saving", "evaluate", "open_run", "pretrain"]
__version__ = "0.1.0"
sys.meta_path.append(FormerNames())

_HOMES = {
    "Evaluation": "ssl_lab.engine.callbacks.evaluation",
    "Pictures": "ssl_lab.engine.callbacks.pictures",
    "Saving": "ssl_lab.engine.checkpoints.saving",
    "evaluate": "ssl_lab.evaluation.evaluate",
    "open_run": "ssl_lab.cli.open_run",
    "pretrain": "ssl_lab.engine.pretrain",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562): most commands need none, and torch takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    """The names of the module, with those that are not imported yet."""
    return sorted({*globals(), *__all__})
