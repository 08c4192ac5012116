"""``ssl_lab.pretrain``: data in, a trained and judged run out."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ssl_lab.api.reader import is_a
from ssl_lab.api.recognise import recognise
from ssl_lab.api.run import Run
from ssl_lab.cli.from_python import overrides_of, pretrain_by_command
from ssl_lab.cli.run_name import new_dir


def pretrain(
    data: Any = None,
    method: str | None = None,
    *,
    labels: Any = None,
    image_size: int | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    run: str | os.PathLike[str] | None = None,
    trust: bool = False,
    **settings: Any,
) -> Run:
    """Pretrain an encoder on data and judge it, as ``ssl-lab pretrain`` does.

    It composes and checks the same settings, writes the same run directory, prints the same lines, and resumes exactly as
    the command does: call it again with the same arguments and the same ``run_dir``, or with ``run=DIR`` alone.

    What is written where: the run directory gets all that the command writes. Arrays, lists and Datasets are written once to
    the cache folder (``$SSL_LAB_CACHE``, by default ``~/.cache/ssl_lab``), in a folder named after a digest of their content,
    and ``config.yaml`` names that folder; so ``ssl-lab evaluate run=DIR`` and :func:`ssl_lab.open_run` work in any other
    process. Images are kept as uint8 and memory-mapped. A folder or file is read where it lies. Of image files in a list, the
    paths are kept, and the decoded images.

    Args:
        data: One of

            - an array or tensor of images (N, H, W, C), (N, C, H, W) or (N, H, W), uint8 or float in [0, 1];
            - a list of texts, of image files, or of single images;
            - a folder or file of images or texts, or a name of ``ssl_lab.list()["data"]``;
            - a ``torch.utils.data.Dataset``, each item of which is read once, or a ``datasets.Dataset``;
            - a DataModule of ssl_lab;
            - a dict of these by split, ``train``, ``val``, ``test`` and ``pretrain``.

            Splits that are missing are cut from the training samples: 10 % each for ``test`` and ``val``, stratified by
            label, as ``data.test_fraction`` and ``data.val_fraction`` say. A line counts them.
        method: A name of ``ssl_lab.list()["methods"]``; ``simclr`` by default, ``mlm`` for texts.
        labels: A label for each sample, a number or a name; None, NaN, blank or -1 where it is unknown, which a warning
            counts. They judge features and are never trained on, unless the method reads labels. A Dataset's own labels are
            found; of one with several splits, give a dict by split. Without labels, the evaluation is the label-free one.
        image_size: What images that differ in size are resized to: the short side, then the centre square.
        epochs: ``trainer.max_epochs``.
        steps: ``trainer.max_steps``, however many epochs that takes.
        run_dir: The run directory; by default a new one below ``runs/``.
        run: A run to resume, with the settings that it has.
        trust: Allow classes that are not ssl_lab's own, which a run or experiment names.
        **settings: Settings of the command by name: ``encoder="resnet18"``, ``optim__lr=1e-3``, ``optim={"lr": 1e-3}`` or
            ``**{"optim.lr": 1e-3, "views@method.views": "weak"}``. Without ``experiment=``, those that are left out are
            chosen by the data.

    Returns:
        The run: features by ``run.embed(x)``, its table by ``run.results``.

    Raises:
        ValueError: If data or settings are wrong, with the message of the command.
        KeyboardInterrupt: If Ctrl-C stopped it; the state is saved and the same call resumes.

    Example:
        >>> run = ssl_lab.pretrain(images, method="simclr", epochs=10, labels=labels)
        >>> run.results["SimCLR encoder"]["knn/top1"]
    """
    chosen = dict(settings)
    _refuse_swapped(data, method)
    if method is not None:
        chosen["method"] = method
    for key, short, value in (("trainer.max_epochs", "epochs", epochs), ("trainer.max_steps", "steps", steps)):
        if value is not None:
            if key in {name.replace("__", ".") for name in chosen}:
                raise ValueError(f"Cannot use both {short}= and {key}=: they are one setting. Leave one out.")
            chosen[key] = value
    if steps is not None and epochs is None and "trainer.max_epochs" not in {k.replace("__", ".") for k in chosen}:
        chosen["trainer.max_epochs"] = -1
    found: dict[str, Any] = {}
    if data is not None:
        given = recognise(data, labels=labels, image_size=image_size)
        found = given.settings()
    elif labels is not None or image_size is not None:
        raise ValueError(
            f"Cannot use {'labels' if labels is not None else 'image_size'}= without data. Give the data first."
        )
    places = {key: value for key, value in (("run_dir", run_dir), ("run", run)) if value is not None}
    folder = Path("runs", type(data).__name__.lower())  # of a DataModule, which has no name among the settings
    with new_dir(folder) if "~data" in found and not places else nullcontext() as own:
        args = overrides_of({**found, **chosen, **places, **({} if own is None else {"run_dir": own})})
        return Run(pretrain_by_command(args, trust=trust), trust=trust, args=args)


def _refuse_swapped(data: Any, method: Any) -> None:
    """Refuse objects where names belong.

    Raises:
        ValueError: Saying where the object belongs.
    """
    if method is None or isinstance(method, str) or is_a(data, "torch.nn.modules.module.Module"):
        return  # a network in the place of data is refused where data are recognised
    name = method.__name__ if isinstance(method, type) else type(method).__name__
    if is_a(method, "ssl_lab.methods.base.Method"):
        raise ValueError(
            "Cannot pretrain a method object by ssl_lab.pretrain, which takes data and the name of a method. Call "
            "method.fit(data), or ssl_lab.engine.pretrain.pretrain(method, data, trainer)."
        )
    raise ValueError(
        f"Cannot use {name} as method: a method is a name, such as method='simclr' (see ssl_lab.list()['methods']). To train "
        "your own network, build the method around it: SimCLR(network, AdamW(), TwoViews(View())).fit(images)."
    )
