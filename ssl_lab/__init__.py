"""ssl_lab: self-supervised pretraining with masked, contrastive and generative objectives.

The package imports nothing heavy before it is used. From images, texts, a folder or a Dataset to a judged encoder::

    import ssl_lab

    run = ssl_lab.pretrain(images, method="simclr", epochs=10, labels=labels)
    features = run.embed(images)

See what there is by ``ssl_lab.list()``, open a run by ``ssl_lab.open_run(DIR)``, and judge any network by
``ssl_lab.evaluate(network, images, labels=labels)``. Methods, encoders and data to build by hand are imported from the
modules that hold them, such as ``ssl_lab.methods.simclr``.
"""

import builtins
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ssl_lab.runs.moved import FormerNames

if TYPE_CHECKING:
    from ssl_lab.api.evaluate import evaluate
    from ssl_lab.api.listing import list
    from ssl_lab.api.pretrain import pretrain
    from ssl_lab.api.run import Run, open_run
    from ssl_lab.engine.callbacks.evaluation import Evaluation
    from ssl_lab.engine.callbacks.pictures import Pictures
    from ssl_lab.engine.checkpoints.saving import Saving

__all__ = ["Evaluation", "Pictures", "Run", "Saving", "evaluate", "list", "open_run", "pretrain"]
__version__ = "0.1.0"
sys.meta_path.append(FormerNames())

_HOMES = {
    "Evaluation": "ssl_lab.engine.callbacks.evaluation",
    "Pictures": "ssl_lab.engine.callbacks.pictures",
    "Saving": "ssl_lab.engine.checkpoints.saving",
    "Run": "ssl_lab.api.run",
    "evaluate": "ssl_lab.api.evaluate",
    "list": "ssl_lab.api.listing",
    "open_run": "ssl_lab.api.run",
    "pretrain": "ssl_lab.api.pretrain",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562): most commands need none, and torch takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> builtins.list[str]:
    """The names of the module, with those that are not imported yet."""
    return sorted({*globals(), *__all__})
