"""Judge a method beside baselines, and refuse what could not be judged before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ssl_lab.data.base import DataModule
from ssl_lab.engine.callbacks import has_split
from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.evaluation.protocol import Protocol
from ssl_lab.evaluation.raw import raw_features
from ssl_lab.methods.base import Method
from ssl_lab.types import Encoder

_SOURCES = {
    "captions": "data=image_text_pairs for captions",
    "factors": "data=shapes, whose images are drawn from known factors",
    "label": "data with labels (data.label_column)",
    "negative_input_ids": "data=text_pairs with data.negative_column",
    "score": "data=text_pairs with data.score_column",
    "second_input_ids": "data=text_pairs for pairs of texts",
    "start_position": "data=squad for questions with answers in a text",
    "target_input_ids": "data=parallel_text for texts and their translations",
    "token_labels": "data=token_labels for texts with a label per token",
}
"""Where columns that not all data have come from."""


def check_needs(method: Method, protocols: Sequence[Protocol], datamodule: DataModule) -> None:
    """Refuse a protocol or data that cannot serve, before hours of training.

    Raises:
        ValueError: Naming who needs what, and what is offered.
    """
    offered = method.capabilities()
    for protocol in protocols:
        if protocol.needs not in offered:
            raise ValueError(
                f"{type(protocol).__name__} needs {protocol.needs!r}, but {type(method).__name__} offers "
                f"{sorted(offered)}. Choose another evaluation=."
            )
    parts: list[tuple[Method | Protocol, str]] = [(method, datamodule.train_split)]
    parts += [(protocol, "train") for protocol in protocols]
    for part, split in parts:
        columns = datamodule.columns(split) if part.needs_columns else {}
        missing = [name for name in part.needs_columns if name not in columns]
        if missing:
            raise ValueError(
                f"{type(part).__name__} needs {', '.join(missing)}, but {type(datamodule).__name__} has "
                f"{sorted(columns)}. Choose {_SOURCES.get(missing[-1], 'data that has it')}."
            )


def check_is_measured(metric: str, protocols: Sequence[Protocol], datamodule: DataModule) -> None:
    """Refuse to choose a checkpoint by what nothing measures; an unknown name is found at the first evaluation.

    Raises:
        ValueError: Naming what is measured.
    """
    asked = f"The checkpoint with the best {metric} was asked for, which"
    if not has_split(datamodule, "val"):
        raise ValueError(
            f"{asked} needs a val split, but {type(datamodule).__name__} has none. Give data with one, such as by "
            "data.val_fraction=0.1, or select=last."
        )
    if not protocols or not metric.startswith("eval/"):
        names = ", ".join(type(protocol).__name__ for protocol in protocols) or "nothing"
        raise ValueError(
            f"{asked} should be an eval/ metric of the val split, measured by {names}. Set objective and evaluation=, or "
            "select=last."
        )


def baseline_rows(
    protocols: Sequence[Protocol],
    datamodule: DataModule,
    random_encoder: Encoder,
    *,
    device: torch.device,
    split: str = "test",
) -> list[dict[str, Any]]:
    """Rows for raw input and a random encoder, by those protocols that judge features."""
    of_features = [p for p in protocols if p.needs == "features" and (datamodule.labelled or not p.needs_labels)]
    if not of_features:
        return []
    random_encoder.to(device).eval()
    raw_name = "word counts" if datamodule.spec.modality == "text" else "raw pixels"
    start_name = "initial encoder" if random_encoder.pretrained else "random encoder"
    return [
        {"name": name, "metrics": evaluate({"features": fn}, of_features, datamodule, device=device, split=split)}
        for name, fn in ((raw_name, raw_features(datamodule.spec)), (start_name, random_encoder.embed))
    ]


def evaluate_with_baselines(
    capabilities: Mapping[str, Callable[..., Any]],
    protocols: Sequence[Protocol],
    datamodule: DataModule,
    baselines: Sequence[Mapping[str, Any]],
    *,
    name: str,
    device: torch.device,
    split: str = "test",
) -> dict[str, Any]:
    """The rows of :func:`baseline_rows` and one for what is judged, as stored in evaluation.json."""
    metrics = evaluate(capabilities, protocols, datamodule, device=device, split=split)
    rows = [*baselines, {"name": name, "metrics": metrics}]
    signatures = {type(protocol).__name__: protocol.signature for protocol in protocols if protocol.signature}
    return {
        "split": split,
        "data": datamodule.title,
        "rows": rows,
        **({"signatures": signatures} if signatures else {}),
    }
