"""``ssl-lab export``: a run's model for other tools, on request uploaded to the hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import nn
from transformers import PreTrainedTokenizerFast

from ssl_lab.cli import build as config
from ssl_lab.cli.trust.spec import read_spec
from ssl_lab.data.text.tokenizer import load_tokenizer
from ssl_lab.export import hub
from ssl_lab.export.card import Exported, model_card
from ssl_lab.export.graph import Features, export_program, features_of, write_graph
from ssl_lab.export.heads import (
    auto_class_of_head,
    check_head,
    classifier_of,
    head_in_transformers,
    scores_of,
    sizes_of,
)
from ssl_lab.export.transformers import (
    auto_class,
    check_finite_method,
    check_replaceable,
    is_whole,
    merge_checked,
    transformers_model,
    write_folder,
    write_for_transformers,
    write_processor,
    write_tokenizer,
)
from ssl_lab.extras import EXTRAS, require
from ssl_lab.methods.base import Method
from ssl_lab.modalities.text import TextSpec
from ssl_lab.outputs import check_output, clear, restore
from ssl_lab.runs.directory import DATA_SPEC
from ssl_lab.runs.files import shell_line
from ssl_lab.runs.read import read_run
from ssl_lab.tasks.base import FineTuning
from ssl_lab.types import Encoder, NotOfferedError, Spec

FORMATS = ("hf", "timm", "onnx", "torch_export")
_PACKAGES = {
    "hf": ("torch", "transformers"),
    "timm": ("torch", "timm"),
    "onnx": ("torch", "onnx", "onnxruntime"),
    "torch_export": ("torch",),
}
_LOADERS = {
    "timm": "timm.create_model",
    "onnx": "onnxruntime.InferenceSession",
    "torch_export": "torch.export.load",
}
_OPTIONAL = {"timm": EXTRAS["vision"], "onnx": EXTRAS["onnx"]}


def run(cfg: DictConfig, args: list[str]) -> int:
    """``ssl-lab export``: write the folder, say how to load it, and upload it with push_to_hub=."""
    if cfg.format not in FORMATS:
        raise ValueError(f"There is no format {cfg.format!r}. Choose format= from {', '.join(FORMATS)}.")
    if cfg.private and cfg.push_to_hub is None:
        raise ValueError(
            "private=true has no effect without a repository on the hub. Give push_to_hub=USER/NAME, or leave it out."
        )
    require(f"export format={cfg.format}", *_OPTIONAL.get(cfg.format, ()))
    run_dir, out = Path(cfg.run), Path(cfg.out)
    if restored := restore(out):
        print(restored)
    check_replaceable(out, overwrite=cfg.overwrite)
    check_output(out.resolve().parent / ".export", setting="out")
    clear(out, runs=[run_dir])
    if cfg.push_to_hub is not None:
        hub.check_hub(cfg.push_to_hub)
    run_cfg, _, method = config.load_run(run_dir)
    spec = method.feature_encoder.tower.spec
    check_finite_method(method, spec)
    merge_checked(method, spec)
    write, made = _chosen(cfg, method, _sizes_of_head(run_cfg, run_dir, spec), run_dir)
    run = read_run(run_dir)
    made.commands = [
        shell_line(command)
        for command in (run.command, ["ssl-lab", "export", *args])
        if command  # what was asked of the run may be unreadable
    ]
    card = model_card(run, made)

    def write_all(folder: Path) -> None:
        write(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")

    write_folder(out, write_all, overwrite=cfg.overwrite)
    print(f"{made.architecture} for {made.loader}: {out}. Its README.md shows how to load it.")
    if cfg.push_to_hub is not None:
        message = f"{run.method} on {run.data}"
        print(f"Uploaded to {hub.push(out, cfg.push_to_hub, private=cfg.private, message=message)}")
    return 0


def _sizes_of_head(run_cfg: DictConfig, run_dir: Path, spec: Spec) -> Spec:
    """Return the facts of a model's input; for a fine-tuned run its size or length is that of the head's data."""
    return sizes_of(spec, read_spec(run_dir, run_cfg, DATA_SPEC)) if (run_dir / DATA_SPEC).is_file() else spec


def _chosen(cfg: DictConfig, method: Method, spec: Spec, run_dir: Path) -> tuple[Callable[[Path], None], Exported]:
    """A writer of encoder and head where the run has one and the format too, or else of the encoder.

    Raises:
        ValueError: If ``head=true`` asks for a head that is not there.
    """
    if cfg.head is not False and isinstance(method, FineTuning):
        try:
            return _writer_with_head(method, spec, run_dir, cfg.format)
        except NotOfferedError as error:
            if cfg.head:
                raise ValueError(
                    f"Cannot export the head in format={cfg.format}: {error}. Choose format=onnx, or head=false for the "
                    "encoder alone."
                ) from error
            print(f"The head is left out: {error}. format=onnx holds any head of classes.")
    elif cfg.head:
        raise ValueError(
            f"Cannot export a head of {run_dir}: {type(method).__name__} has none. Leave head= out, or give run= a run of "
            "ssl-lab finetune."
        )
    return _writer(method, method.feature_encoder.tower.spec, run_dir, cfg.format)


def _writer_with_head(
    task: FineTuning, spec: Spec, run_dir: Path, format: str
) -> tuple[Callable[[Path], None], Exported]:
    """Return the function that fills the folder with encoder and head, and the facts of the model card.

    Raises:
        NotOfferedError: If the format has no such head.
    """
    encoder = task.feature_encoder
    tokenizer = load_tokenizer(str(run_dir / "tokenizer")) if (run_dir / "tokenizer").is_dir() else None
    write_texts = partial(_write_texts, tokenizer, spec)
    names = list(task.score_names())
    facts = {
        **_facts(encoder, spec, format),
        "whole": True,
        "uses_labels": True,
        "classes": tuple(names),
        "num_parameters": _num_parameters(encoder, _head_of(task)),
    }
    if format == "hf":
        model = head_in_transformers(task)

        def write_hf(folder: Path) -> None:
            write_for_transformers(model, folder)
            write_texts(folder)
            check_head(model, task, spec, folder)

        facts |= {"architecture": type(model).__name__, "loader": f"transformers.{auto_class_of_head(model)}"}
        return write_hf, Exported(**facts)
    if format == "timm":
        from ssl_lab.export.timm import for_timm, write_for_timm

        classifier = classifier_of(task)
        for_timm(encoder)  # refused before a folder is made

        def write_timm(folder: Path) -> None:
            task.cpu().eval()
            write_for_timm(encoder, folder, classifier=classifier, spec=spec)

        return write_timm, Exported(**facts)
    lines = {"outputs": ["scores"], "classes": names}
    metadata = {"classes": json.dumps(names), "task": type(task).__name__}
    write = _graph(scores_of(task), spec, write_texts, format=format, facts=lines, metadata=metadata)
    return write, Exported(**facts)


def _head_of(task: FineTuning) -> nn.Module:
    """The head's layers."""
    assert isinstance(task.head, nn.Module)
    return task.head


def _writer(method: Method, spec: Spec, run_dir: Path, format: str) -> tuple[Callable[[Path], None], Exported]:
    """Return the function that fills the folder, and the facts of the model card."""
    encoder = method.feature_encoder
    tokenizer = None
    if isinstance(spec, TextSpec):
        causal = "generate" in method.capabilities()
        tokenizer = load_tokenizer(str(run_dir / "tokenizer"), framing="causal" if causal else "encoder")
    write_texts = partial(_write_texts, tokenizer, spec)
    facts = {**_facts(encoder, spec, format), "uses_labels": method.uses_labels}
    if format == "hf":
        model = transformers_model(method)

        def write_hf(folder: Path) -> None:
            write_for_transformers(model, folder)
            write_texts(folder)
            write_processor(encoder, folder)

        facts |= {"architecture": type(model).__name__, "loader": f"transformers.{auto_class(model)}"}
        size = _num_parameters(model)
        return write_hf, Exported(whole=is_whole(method), num_parameters=size, pooling=encoder.pooling, **facts)
    if format == "timm":
        from ssl_lab.export.timm import write_for_timm

        part = encoder.tower
        facts |= {"architecture": type(part).__name__, "whole": is_whole(method)}
        return partial(write_for_timm, part), Exported(num_parameters=_num_parameters(part), **facts)
    write = _graph(features_of(method), spec, write_texts, format=format, facts={"outputs": ["features"]})
    return write, Exported(whole=True, num_parameters=_num_parameters(encoder), **facts)


def _facts(encoder: Encoder, spec: Spec, format: str) -> dict[str, Any]:
    """Facts of the model card that follow from encoder and format."""
    packages = {name: version(name) for name in ("ssl_lab", *_PACKAGES[format])}
    loader = {"loader": _LOADERS[format]} if format in _LOADERS else {}
    return {"format": format, "spec": spec, "packages": packages, "architecture": type(encoder).__name__, **loader}


def _num_parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def _write_texts(tokenizer: PreTrainedTokenizerFast | None, spec: Spec, folder: Path) -> None:
    """Write the tokenizer, if there is one."""
    if tokenizer is not None:
        write_tokenizer(tokenizer, folder, max_length=spec.shape[0])


def _graph(
    features: Features,
    spec: Spec,
    write_texts: Callable[[Path], None],
    *,
    format: str,
    facts: dict[str, Any],
    metadata: dict[str, str] | None = None,
) -> Callable[[Path], None]:
    """Return the function that writes a graph and its ``config.json``; what cannot be exported is refused here.

    Args:
        features: The network with what it reads.
        spec: Facts of its input.
        write_texts: Writes the tokenizer.
        format: ``onnx`` or ``torch_export``.
        facts: Further lines of ``config.json``, among them the ``outputs``.
        metadata: Texts that ``model.onnx`` carries.
    """
    program = export_program(features, spec)
    config_json = {"format": format, **spec.exported_inputs(), **facts}

    def write(folder: Path) -> None:
        (output,) = facts["outputs"]
        write_graph(program, features, spec, folder, kind=format, output=output, metadata=metadata)
        write_texts(folder)
        (folder / "config.json").write_text(json.dumps(config_json, indent=2) + "\n", encoding="utf-8")

    return write
