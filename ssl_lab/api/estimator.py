"""Methods that were built by hand, in the habit of estimators: ``SimCLR(network, AdamW(), TwoViews(View())).fit(images)``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from ssl_lab.api.reader import is_a
from ssl_lab.api.recognise import recognise
from ssl_lab.cli.from_python import overrides_of, run_command
from ssl_lab.cli.run_name import new_dir, removed_if_refused
from ssl_lab.engine.checkpoints.signals import is_first_rank

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ssl_lab.methods.base import Method

_MODES: WeakKeyDictionary[Any, dict[Any, bool]] = WeakKeyDictionary()
"""The modes of all parts of methods that a fit has put into eval mode since."""
_BUILT = ("method", "encoder", "optim", "experiment", "views", "compile", "activation_checkpointing")
M = TypeVar("M", bound="Method")


def fit(
    method: M,
    data: Any,
    *,
    labels: Any = None,
    image_size: int | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> M:
    """Train a method that was built by hand, and judge it on the test split beside raw input and its encoder before training.

    The run directory gets metrics, checkpoints, pictures, results and a report. It cannot be opened by itself, as no settings
    say how the method was built; the same call with the same ``run_dir`` resumes it. A call with other settings is refused
    there, unless ``force=True``.

    A network in eval mode was put into training mode when the method was built, but for parts whose parameters require no
    gradient; parts in eval mode of a network in training mode stay so.

    Args:
        method: The method; of a bare network as its encoder, channel statistics are taken from the data.
        data: As for :func:`ssl_lab.pretrain`.
        labels: A label for each sample, by which features are judged.
        image_size: What images that differ in size are resized to.
        epochs: Length of the training; 100 without ``steps``.
        steps: The same in optimizer steps.
        run_dir: Where to; by default a new directory below ``runs/``.
        **settings: Settings of ``ssl-lab pretrain`` for data, trainer and evaluation, such as ``data__batch_size=64`` or
            ``trainer__accelerator="cpu"``.

    Returns:
        The method, trained, on the CPU and in eval mode; ``method.embed(images)`` gives features.

    Raises:
        ValueError: If data or settings are wrong, a setting is of what was built already, or ``run_dir`` holds a run with
            other settings.
    """
    if built := [key for key in settings if key.replace("__", ".").partition(".")[0].partition("@")[0] in _BUILT]:
        raise ValueError(
            f"Cannot set {built[0]} in fit: the method is built already. Give it to {type(method).__name__}, or train by "
            "ssl_lab.pretrain."
        )
    chosen: dict[str, Any] = dict(settings)
    if epochs is not None:
        chosen["trainer.max_epochs"] = epochs
    if steps is not None:
        chosen |= {"trainer.max_steps": steps, **({} if epochs is not None else {"trainer.max_epochs": -1})}
    module = data if is_a(data, "ssl_lab.data.base.DataModule") else None
    if module is None:
        given = recognise(data, labels=labels, image_size=image_size)
        usual = {"evaluation": "label_free"} if given.labelled is False else {}
        chosen = {**given.settings(), **usual, **chosen}
    elif labels is not None or any(key.startswith("data") for key in settings):
        raise ValueError(
            "Cannot change a DataModule in fit: it is built already. Build it with these labels and settings."
        )
    folder = Path("runs", type(method).__name__.lower())
    with (
        new_dir(folder) if run_dir is None else nullcontext(Path(run_dir)) as place,
        removed_if_refused(place, parents=2 if run_dir is None else 0),
    ):
        args = overrides_of({**chosen, "run_dir": place})
        run_command("pretrain", args, lambda cfg: _train(method, cfg, module))
    return method


def embed(method: Method, data: Any, *, image_size: int | None = None) -> NDArray[np.float32]:
    """Features of samples by a method that was built by hand; see :meth:`ssl_lab.Run.embed`."""
    given = recognise(data, image_size=image_size)
    spec = method.feature_encoder.tower.spec
    return features_in_order(method.features, given.batches(None, spec), method)


def features_in_order(
    features: Callable[[dict[str, Any]], Tensor], batches: Iterator[dict[str, Any]], network: Any
) -> NDArray[np.float32]:
    """Features float32 (N, D) of all batches, computed on the GPU if there is one; the network is on the CPU afterwards.

    Raises:
        ValueError: If one is not finite.
    """
    import numpy as np
    import torch

    from ssl_lab.devices import find_device
    from ssl_lab.evaluation.protocol import check_finite

    device = find_device()
    network.to(device)
    try:
        with torch.no_grad():
            found = [
                features({name: column.to(device) for name, column in batch.items()}).float().cpu() for batch in batches
            ]
    finally:
        network.to("cpu")
    rows = torch.cat(found)
    check_finite(rows, "given", use="returned")
    return np.ascontiguousarray(rows.numpy())


def _train(method: Method, cfg: Any, datamodule: Any) -> None:
    import lightning as L

    from ssl_lab.cli import build
    from ssl_lab.cli.fitting import changes_of_fit, settings_of, write_fit
    from ssl_lab.cli.process import print_table
    from ssl_lab.cli.training import build_training
    from ssl_lab.encoders.network import Network
    from ssl_lab.engine.beginning import Beginning
    from ssl_lab.report.page import write_report
    from ssl_lab.runs.directory import find_checkpoint, has_checkpoint, read_json
    from ssl_lab.runs.lock import lock_run

    L.seed_everything(cfg.seed, verbose=False)
    run_dir = Path(cfg.run_dir)
    if datamodule is None:
        datamodule = build.build_data(cfg.data, seed=cfg.seed)
    for part in method.modules():
        if isinstance(part, Network):
            part.fit_to(datamodule.spec)
    _restore_modes(method)
    lock = lock_run(run_dir) if is_first_rank() else None
    try:
        built = settings_of(method)
        changes = changes_of_fit(built, cfg, run_dir)
        checkpoint = find_checkpoint(run_dir) if has_checkpoint(run_dir) else None
        training = build_training(cfg, run_dir, method, datamodule, mode=None, objective=cfg.objective)
        beginning = Beginning(run_dir, waits=bool(changes), forced=cfg.force, changes=changes)
        if training.trainer.is_global_zero:
            beginning.do(lambda: write_fit(built, cfg, run_dir))
        training.run(checkpoint, beginning=beginning)
    finally:
        if lock is not None:
            lock.release()
    _MODES[method] = {module: module.training for module in method.modules()}
    method.cpu().eval()
    if training.trainer.is_global_zero:
        if evaluation := read_json(run_dir / "evaluation.json"):
            print_table(evaluation)
        print(
            f"Trained in {read_json(run_dir / 'summary.json')['training_time_sec']:.0f} s. Report: {write_report(run_dir)}"
        )


def _restore_modes(method: Method) -> None:
    """Put a method back into the modes that an earlier fit trained it in, or one in eval mode into training mode."""
    from ssl_lab.methods.base import into_training

    if not method.training:
        for module in method.modules():
            module.training = _MODES.get(method, {}).get(module, True)
        if method not in _MODES:
            method.encoder.eval()
            into_training(method.encoder)
