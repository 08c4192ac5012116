"""The README.md of an exported model: what it is, how it was trained, what was measured, how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ssl_lab.export import snippets
from ssl_lab.report.tables import markdown_table
from ssl_lab.runs.read import Run

_TASKS = {
    "transformers.AutoModelForMaskedLM": "fill-mask",
    "transformers.AutoModelForCausalLM": "text-generation",
    "transformers.AutoModelForSeq2SeqLM": "text2text-generation",
}
"""What a model is for in the hub's words, by what loads it; the others give features."""
_LIBRARIES = {"hf": "transformers", "timm": "timm", "onnx": "onnx", "torch_export": "pytorch"}


@dataclass(kw_only=True)
class Exported:
    """What a card says of the files beside it.

    Attributes:
        format: ``hf``, ``timm``, ``onnx`` or ``torch_export``.
        loader: What loads it, such as ``transformers.AutoModelForMaskedLM``.
        architecture: Class of the network.
        num_parameters: Parameters, tied ones once.
        shape: Of one sample: (C, H, W) of images, (L,) of texts.
        mean: Mean of each channel that images are normalised by; empty for texts.
        std: Deviation of each channel.
        vocab_size: Tokens of a text model's tokenizer, or None.
        whole: Whether it gives the very features that were measured, rather than those before a head of the method's.
        uses_labels: Whether the method read labels.
        packages: Versions that it was written with.
        pooling: How features are made of a transformer's states.
        commands: Commands that made the run and the export, as far as they are known.
    """

    format: str
    loader: str
    architecture: str
    num_parameters: int
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    vocab_size: int | None
    whole: bool
    uses_labels: bool
    packages: Mapping[str, str]
    pooling: str = "mean"
    commands: list[str] = field(default_factory=list)

    @property
    def is_text(self) -> bool:
        """Whether it reads texts."""
        return self.vocab_size is not None


def model_card(run: Run, made: Exported) -> str:
    """Markdown with the front matter that the Hugging Face hub reads.

    Args:
        run: The run that trained the model.
        made: What was exported, and how.
    """
    summary = run.summary
    fine_tuned = "start" in summary  # of ssl-lab finetune
    start = (run.config.get("encoder") or {}).get("pretrained") or None
    source = f"the run {Path(run.config['run']).name}" if fine_tuned and run.config.get("run") else None
    facts = [
        ("Method", run.method),
        ("Started from", source or ("published weights" if start is True else start)),
        ("Data", run.data),
        ("Architecture", made.architecture),
        ("Parameters", f"{made.num_parameters:,}"),
        ("Vocabulary", f"{made.vocab_size:,} tokens" if made.vocab_size else None),
        ("Longest text", f"{made.shape[0]:,} tokens, special ones included" if made.is_text else None),
        ("Steps", _count(summary.get("step"))),
        ("Epochs", _count(summary.get("epoch"))),
        ("Training samples", _count(summary.get("num_train_samples"))),
        ("Seed", summary.get("seed")),
        ("Trained with", _versions(summary.get("versions") or {})),
        ("Exported with", ", ".join(f"{name} {version}" for name, version in made.packages.items())),
    ]
    known = "\n".join(f"| {name} | {value} |" for name, value in facts if value not in (None, ""))
    commands = "".join(f"{command}\n" for command in made.commands)
    return f"""---
{_front_matter(run, made, fine_tuned)}---

# {run.method} on {run.data}

A {made.architecture} {_trained(run, made, fine_tuned)}.

| | |
|:--|:--|
{known}

## Measured

{_measured(run, made)}
## Use

```python
{_snippet(run, made)}```

{_inputs(made)}
## Made by

```bash
{commands}```

## Limits

{_limits(run, made, source or (str(start) if start else None))}

## Licence

To be filled in before it is published: the licence of the training data decides what is allowed. Then add `license:` to
the lines at the top.
"""


def _front_matter(run: Run, made: Exported, fine_tuned: bool) -> str:
    features = "feature-extraction" if made.is_text else "image-feature-extraction"
    tags = ["ssl_lab", *([] if fine_tuned else ["self-supervised-learning"]), run.method.lower()]
    front = {
        "library_name": _LIBRARIES[made.format],
        "pipeline_tag": _TASKS.get(made.loader, features),
        "tags": tags,
    }
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True)


def _trained(run: Run, made: Exported, fine_tuned: bool) -> str:
    if fine_tuned:
        return f"fine-tuned with the labels of {run.data}; the head of its task is not in it"
    kind = "text" if made.is_text else "images"
    return f"pretrained on {kind} {'and their labels' if made.uses_labels else 'without labels'}"


def _measured(run: Run, made: Exported) -> str:
    if not run.evaluation or not any(row["metrics"] for row in run.evaluation["rows"]):
        return "Nothing was measured.\n"
    checkpoint = (
        "best checkpoint on the validation split" if run.summary.get("checkpoint") == "best" else "last checkpoint"
    )
    before_head = (
        ""
        if made.whole
        else f"The features that were measured are {run.method}'s, behind a head of its own that is not in this folder; "
        "format=onnx and format=torch_export hold it.\n\n"
    )
    return (
        f"On the {run.evaluation.get('split', 'test')} split of {run.data}, {checkpoint}.\n\n{before_head}"
        f"{markdown_table(run.evaluation)}"
    )


def _snippet(run: Run, made: Exported) -> str:
    if made.format == "timm":
        return snippets.for_timm(made.shape)
    if made.format == "onnx":
        return snippets.for_onnx(made.shape, is_text=made.is_text)
    if made.format == "torch_export":
        return snippets.for_torch_export(made.shape, is_text=made.is_text)
    if not made.is_text:
        return snippets.for_vit(made.shape, made.mean, made.std, pooling=made.pooling)
    of_tokenizer = (run.config.get("encoder") or {}).get("pretrained") is not None
    end = "len(tokenizer)" if of_tokenizer else "model.config.vocab_size"
    return snippets.for_transformers(made.loader.partition(".")[2], pooling=made.pooling, sentinels_end=end)


def _inputs(made: Exported) -> str:
    if made.is_text:
        inputs = (
            f"Input: `input_ids` and `attention_mask` of the tokenizer in this folder, int64, 2 to {made.shape[0]:,} tokens, "
            "padding at the end. Output: one vector a text."
        )
        if made.loader in _TASKS:
            inputs = (
                "`AutoModel` loads the encoder without its head; features of a text are its last hidden states, averaged "
                "over the\ntokens that `attention_mask` marks."
            )
        return f"{inputs}\n"
    channels, height, width = made.shape
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (made.mean, made.std))
    normalised = f"subtracting the channels' mean ({mean}) and dividing by their deviation ({std})"
    who = "The graph normalises them itself by" if made.format in ("onnx", "torch_export") else "They are normalised by"
    moved = ""
    if made.format == "torch_export":
        moved = "\nThe program lies on the CPU; `torch.export.passes.move_to_device_pass` moves it to a GPU.\n"
    return (
        f"Input: images as float32 in [0, 1] (8-bit values divided by 255), layout (number, channels, height, width) with "
        f"{channels} channel{'s' if channels > 1 else ''}\nof {height} x {width} pixels. {who} {normalised}.\n"
        f"Output: one vector an image, for any number of images.\n{moved}"
    )


def _limits(run: Run, made: Exported, source: str | None) -> str:
    learned_from = f"the training samples above{f' and those of {source}' if source else ''}"
    if made.is_text:
        return (
            f"The model has learned from {learned_from} and nothing else: it repeats their language, topics,\n"
            f"errors and prejudices, and is not to be relied on for facts. Texts of more than {made.shape[0]:,} tokens are "
            "outside of what it\nhas learned. The figures above are of the test split of the same data; on other text expect "
            "worse."
        )
    return (
        f"The model has learned from {learned_from} and nothing else: on images of other things, sizes or cameras its\n"
        "features mean less. The figures above are of the test split of the same data; on other images expect worse.\n"
        "It gives features, no classes."
    )


def _versions(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in ("ssl_lab", "torch", "transformers") if name in versions)


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
