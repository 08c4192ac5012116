"""Heads of fine-tuned tasks in the words of other libraries: transformers' models of text, timm's classifiers, graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import singledispatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from ssl_lab.export.graph import Features, features_of
from ssl_lab.export.transformers import check_features
from ssl_lab.modalities.text import TextSpec
from ssl_lab.tasks.base import FineTuning
from ssl_lab.tasks.classification import Classification
from ssl_lab.tasks.question_answering import QuestionAnswering
from ssl_lab.tasks.text_classification import TextClassification
from ssl_lab.tasks.token_classification import TokenClassification
from ssl_lab.types import Batch, NotOfferedError, Spec

_PLAIN = ("bert", "roberta", "xlm-roberta", "camembert", "gpt2")
"""Architectures whose heads of tokens and of answers are one linear layer on the last states."""
_BERT = {"bert": ("bert.pooler.dense", "classifier")}
_ROBERTA = dict.fromkeys(("roberta", "xlm-roberta", "camembert"), ("classifier.dense", "classifier.out_proj"))
_OF_FIRST = _BERT | _ROBERTA
"""Where an architecture keeps the two linear layers around a tanh that classify by the first token."""


def sizes_of(spec: Spec, data: Spec) -> Spec:
    """The facts that an encoder was built from, with the sizes of the data that its head was trained on."""
    own = {each.name for each in fields(spec)}
    return replace(spec, **{name: getattr(data, name) for name in ("shape", "length") if name in own})


def scores_of(task: FineTuning) -> Features:
    """The scores of a task's head as a function of tensors alone, in eval mode on the CPU.

    Raises:
        NotOfferedError: If the task has no such scores.
    """
    task.score_names()  # which says so
    return Features(task, task.scores, features_of(task).names)


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A linear head on an encoder's features.

    Attributes:
        linear: The layer.
        names: The classes.
        scores: Scores (B, C) of a batch, to compare with.
    """

    linear: nn.Linear
    names: tuple[str, ...]
    scores: Callable[[Batch], Tensor]


def classifier_of(task: FineTuning) -> Classifier:
    """The one linear layer on an encoder's features that timm's models have too.

    Raises:
        NotOfferedError: If the head is another one.
    """
    layers = list(task.head) if isinstance(task, Classification) and isinstance(task.head, nn.Sequential) else []
    if not isinstance(task, Classification) or [type(each) for each in layers] != [nn.Dropout, nn.Linear]:
        raise NotOfferedError(f"the models of timm have no head of {type(task).__name__}")
    head = task.head if task.average is None else task.average.head
    *_, last = head.children()
    assert isinstance(last, nn.Linear)
    return Classifier(linear=last, names=task.score_names(), scores=task.scores)


@singledispatch
def head_in_transformers(task: FineTuning) -> PreTrainedModel:
    """Encoder and head as one model of transformers.

    Raises:
        NotOfferedError: If transformers has no such head for the encoder.
    """
    raise NotOfferedError(f"transformers has no head of {type(task).__name__}")


@head_in_transformers.register
def _(task: TokenClassification) -> PreTrainedModel:
    return _model(task, AutoModelForTokenClassification, _linear(task, "classifier"))


@head_in_transformers.register
def _(task: QuestionAnswering) -> PreTrainedModel:
    return _model(task, AutoModelForQuestionAnswering, _linear(task, "qa_outputs"))


@head_in_transformers.register
def _(task: TextClassification) -> PreTrainedModel:
    kind, layers = task.encoder.config.model_type, list(task.head.children())
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if task.head_kind == "bert" and kind in _OF_FIRST:
        return _model(task, AutoModelForSequenceClassification, dict(zip(_OF_FIRST[kind], linear, strict=True)))
    pooling = {"mean": "mean", "first": "cls"}.get(task.encoder.pooling)
    if task.head_kind == "modernbert" and kind == "modernbert" and pooling is not None:
        parts = {"head.dense": linear[0], "head.norm": layers[2], "classifier": linear[1]}
        settings = {"classifier_pooling": pooling, "classifier_bias": True, "norm_bias": True}
        return _model(task, AutoModelForSequenceClassification, parts, **settings)
    raise NotOfferedError(
        f"transformers' classifier of a {kind} has another head than method.head={task.head_kind}; fine-tune with "
        "method.head=bert for one that it has for BERT and RoBERTa"
    )


def _linear(task: FineTuning, name: str) -> dict[str, nn.Module]:
    encoder: Any = task.encoder
    kind = encoder.config.model_type
    if kind not in _PLAIN:
        raise NotOfferedError(f"transformers' {kind} has another head for {type(task).__name__}")
    assert isinstance(task.head, nn.Sequential)
    return {name: task.head[-1]}


def _model(task: FineTuning, auto: Any, parts: Mapping[str, nn.Module], **settings: Any) -> PreTrainedModel:
    """A model of transformers with the encoder's weights and those of the head's parts, by their place in it."""
    encoder: Any = task.encoder
    names = dict(enumerate(task.score_names()))
    config = deepcopy(encoder.config)
    config.update({"id2label": names, "label2id": {name: k for k, name in names.items()}, **settings})
    model: Any = auto.from_config(config, attn_implementation="sdpa", trust_remote_code=False)
    model.base_model.load_state_dict(encoder.transformer.state_dict(), strict=False)  # compared after it is written
    for name, part in parts.items():
        model.get_submodule(name).load_state_dict(part.state_dict())
    return model.to(task.device).eval()  # type: ignore[no-any-return]


def auto_class_of_head(model: PreTrainedModel) -> str:
    """Name of the class of transformers that loads a model with its head."""
    return f"AutoModelFor{type(model).__name__.partition('For')[2]}"


@torch.no_grad()
def check_head(model: PreTrainedModel, task: FineTuning, spec: Spec, folder: Path) -> None:
    """Load the exported head and compare its scores with the run's at all tokens except padding.

    Raises:
        ValueError: If they differ.
    """

    def load() -> Callable[[Batch], Tensor]:
        loaded = type(model).from_pretrained(folder, trust_remote_code=False).eval()
        return lambda batch: _real(batch, _scores(loaded(**_as_text(batch, spec))))

    task.cpu()
    check_features(load, lambda batch: _real(batch, task.scores(_as_text(batch, spec))), spec)


def _as_text(batch: Batch, spec: Spec) -> Batch:
    """Random ids without padding inside of a text, which no text has: RoBERTa counts positions by it."""
    pad = TextSpec.of(spec, "A head of transformers").pad_id or 0
    inside = (batch["input_ids"] == pad) & (batch["attention_mask"] == 1)
    return {**batch, "input_ids": batch["input_ids"].masked_fill(inside, pad + 1)}


def _scores(output: Any) -> Tensor:
    found: Tensor = output.logits if "logits" in output else torch.stack([output.start_logits, output.end_logits], -1)
    return found


def _real(batch: Batch, scores: Tensor) -> Tensor:
    return scores if scores.ndim < 3 else scores * batch["attention_mask"].unsqueeze(-1)
