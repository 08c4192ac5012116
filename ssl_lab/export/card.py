"""The README.md of an exported model: origin, training, results and code that loads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from ssl_lab.export import snippets
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.text import TextSpec
from ssl_lab.report.tables import markdown_table
from ssl_lab.runs.read import Run
from ssl_lab.types import Spec

_TASKS = {
    "transformers.AutoModelForMaskedLM": "fill-mask",
    "transformers.AutoModelForCausalLM": "text-generation",
    "transformers.AutoModelForSeq2SeqLM": "text2text-generation",
    "transformers.AutoModelForSequenceClassification": "text-classification",
    "transformers.AutoModelForTokenClassification": "token-classification",
    "transformers.AutoModelForQuestionAnswering": "question-answering",
}
"""The hub's name of a model's task, by the class that loads it; the others give features."""
_NO_CLASSES = "It gives features, no classes."
_MOST_NAMED = 50
_LIBRARIES = {"hf": "transformers", "timm": "timm", "onnx": "onnx", "torch_export": "pytorch"}


@dataclass(kw_only=True)
class Exported:
    """Facts of a card about the files beside it.

    Attributes:
        format: ``hf``, ``timm``, ``onnx`` or ``torch_export``.
        loader: What loads it, such as ``transformers.AutoModelForMaskedLM``.
        architecture: Class of the network.
        num_parameters: Parameters, tied ones once.
        spec: What it reads.
        whole: Whether it gives the very features that were measured, rather than those before a head of the method's.
        uses_labels: Whether the method read labels.
        packages: Versions that it was written with.
        pooling: How features are made of a transformer's states.
        classes: What the scores of its head stand for; empty without a head.
        commands: Commands that made the run and the export, as far as they are known.
    """

    format: str
    loader: str
    architecture: str
    num_parameters: int
    spec: Spec
    whole: bool
    uses_labels: bool
    packages: Mapping[str, str]
    pooling: str = "mean"
    classes: tuple[str, ...] = ()
    commands: list[str] = field(default_factory=list)


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
        *_facts_of(made.spec),
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
{_front_matter(run, made, fine_tuned).to_yaml()}
---

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

{_outputs_of_head(made) if made.classes else _inputs(made.spec, made)}
## Made by

```bash
{commands}```

## Limits

{_limits(made.spec, source or (str(start) if start else None)).replace(_NO_CLASSES if made.classes else "", "")}

## Licence

To be filled in before it is published: the licence of the training data decides what is allowed. Then add `license:` to
the lines at the top.
"""


def _front_matter(run: Run, made: Exported, fine_tuned: bool) -> ModelCardData:
    return ModelCardData(
        library_name=_LIBRARIES[made.format],
        pipeline_tag=_TASKS.get(made.loader, _feature_task(made.spec)),
        tags=["ssl_lab", *([] if fine_tuned else ["self-supervised-learning"]), run.method.lower()],
    )


def _trained(run: Run, made: Exported, fine_tuned: bool) -> str:
    if fine_tuned:
        head = "with the head of its task" if made.classes else "the head of its task is not in it"
        return f"fine-tuned with the labels of {run.data}; {head}"
    return f"pretrained on {made.spec.kind} {'and their labels' if made.uses_labels else 'without labels'}"


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
    if made.classes:
        return snippets.for_head(made.format, made.loader, made.spec)
    if made.format == "timm":
        return snippets.for_timm(made.spec.shape)
    if made.format == "onnx":
        return snippets.for_onnx(made.spec)
    if made.format == "torch_export":
        return snippets.for_torch_export(made.spec)
    if isinstance(made.spec, ImageSpec):
        return snippets.for_vit(made.spec, pooling=made.pooling)
    of_tokenizer = (run.config.get("encoder") or {}).get("pretrained") is not None
    end = "len(tokenizer)" if of_tokenizer else "model.config.vocab_size"
    return snippets.for_transformers(made.loader.partition(".")[2], pooling=made.pooling, sentinels_end=end)


def _outputs_of_head(made: Exported) -> str:
    """Describe the inputs and outputs of a model with a head."""
    inputs = ", ".join(
        f"`{name}` {facts['type']} ({', '.join(map(str, facts['shape']))})"
        for name, facts in made.spec.exported_inputs()["inputs"].items()
    )
    names = ", ".join(made.classes[:_MOST_NAMED]) + (", ..." if len(made.classes) > _MOST_NAMED else "")
    return f"Input: {made.spec.kind} as {inputs}.\nOutput: scores before the softmax, in the order {names}.\n"


@singledispatch
def _facts_of(spec: Spec) -> list[tuple[str, str]]:
    """Rows of the table of facts that only this kind of data has."""
    return []


@_facts_of.register
def _(spec: TextSpec) -> list[tuple[str, str]]:
    return [
        ("Vocabulary", f"{spec.vocab_size:,} tokens"),
        ("Longest text", f"{spec.length:,} tokens, special ones included"),
    ]


@singledispatch
def _feature_task(spec: Spec) -> str:
    """Return the hub's name for features of such data."""
    return "feature-extraction"


@_feature_task.register
def _(spec: ImageSpec) -> str:
    return "image-feature-extraction"


@singledispatch
def _inputs(spec: Spec, made: Exported) -> str:
    """Describe the inputs and outputs."""
    inputs = ", ".join(
        f"`{name}` {facts['type']} ({', '.join(map(str, facts['shape']))})"
        for name, facts in spec.exported_inputs()["inputs"].items()
    )
    return f"Input: {spec.kind} as {inputs}. Output: one vector each.\n"


@_inputs.register
def _(spec: TextSpec, made: Exported) -> str:
    if made.loader in _TASKS:
        return (
            "`AutoModel` loads the encoder without its head; features of a text are its last hidden states, averaged "
            "over the\ntokens that `attention_mask` marks.\n"
        )
    return (
        f"Input: `input_ids` and `attention_mask` of the tokenizer in this folder, int64, 2 to {spec.length:,} tokens, "
        "padding at the end. Output: one vector a text.\n"
    )


@_inputs.register
def _(spec: ImageSpec, made: Exported) -> str:
    channels, height, width = spec.shape
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (spec.mean, spec.std))
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


@singledispatch
def _limits(spec: Spec, source: str | None) -> str:
    """Describe the limits of the model."""
    return (
        f"The model has learned from {_sources(source)} and nothing else: on {spec.kind} of other origin its\n"
        "features mean less. The figures above are of the test split of the same data; on other data expect worse.\n"
        "It gives features, no classes."
    )


@_limits.register
def _(spec: TextSpec, source: str | None) -> str:
    return (
        f"The model has learned from {_sources(source)} and nothing else: it repeats their language, topics,\n"
        f"errors and prejudices, and is not to be relied on for facts. Texts of more than {spec.length:,} tokens are "
        "outside of what it\nhas learned. The figures above are of the test split of the same data; on other text expect "
        "worse."
    )


@_limits.register
def _(spec: ImageSpec, source: str | None) -> str:
    return (
        f"The model has learned from {_sources(source)} and nothing else: on images of other things, sizes or cameras its\n"
        "features mean less. The figures above are of the test split of the same data; on other images expect worse.\n"
        "It gives features, no classes."
    )


def _sources(source: str | None) -> str:
    return f"the training samples above{f' and those of {source}' if source else ''}"


def _versions(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in ("ssl_lab", "torch", "transformers") if name in versions)


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
