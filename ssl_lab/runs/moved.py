"""Where classes stand today that the settings of older runs, and code written for them, name."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "ssl_lab.data.digits": "ssl_lab.data.image.digits",
    "ssl_lab.data.hub_images": "ssl_lab.data.image.hub_images",
    "ssl_lab.data.hub_text": "ssl_lab.data.text.hub_text",
    "ssl_lab.data.image_folder": "ssl_lab.data.image.image_folder",
    "ssl_lab.data.image_text_pairs": "ssl_lab.data.pair.image_text",
    "ssl_lab.data.named_images": "ssl_lab.data.image.named_images",
    "ssl_lab.data.parallel_text": "ssl_lab.data.text.parallel_text",
    "ssl_lab.data.python_docs": "ssl_lab.data.text.python_docs",
    "ssl_lab.data.question_answering": "ssl_lab.data.text.question_answering",
    "ssl_lab.data.shapes": "ssl_lab.data.image.shapes",
    "ssl_lab.data.shards": "ssl_lab.data.text.shards",
    "ssl_lab.data.text_pairs": "ssl_lab.data.text.text_pairs",
    "ssl_lab.data.token_labels": "ssl_lab.data.text.token_labels",
    "ssl_lab.engine.dashboards": "ssl_lab.engine.logging.dashboards",
    "ssl_lab.engine.online_probes": "ssl_lab.engine.callbacks.online_probes",
    "ssl_lab.engine.sharded": "ssl_lab.engine.checkpoints.sharded",
    "ssl_lab.evaluation.answers": "ssl_lab.tasks.question_answering",
    "ssl_lab.evaluation.codes": "ssl_lab.evaluation.likelihood.codes",
    "ssl_lab.evaluation.denoising": "ssl_lab.evaluation.likelihood.denoising",
    "ssl_lab.evaluation.disentanglement": "ssl_lab.evaluation.geometry.disentanglement",
    "ssl_lab.evaluation.fid": "ssl_lab.evaluation.samples.fid",
    "ssl_lab.evaluation.knn": "ssl_lab.evaluation.probes.knn",
    "ssl_lab.evaluation.label_free": "ssl_lab.evaluation.geometry.label_free",
    "ssl_lab.evaluation.language_modelling": "ssl_lab.evaluation.likelihood.language_modelling",
    "ssl_lab.evaluation.likelihood": "ssl_lab.evaluation.likelihood.images",
    "ssl_lab.evaluation.linear": "ssl_lab.evaluation.probes.linear",
    "ssl_lab.evaluation.masked": "ssl_lab.evaluation.likelihood.masked",
    "ssl_lab.evaluation.pseudo_perplexity": "ssl_lab.evaluation.likelihood.pseudo_perplexity",
    "ssl_lab.evaluation.retrieval": "ssl_lab.evaluation.retrieval.retrieval",
    "ssl_lab.evaluation.samples": "ssl_lab.evaluation.samples.quality",
    "ssl_lab.evaluation.spans": "ssl_lab.tasks.token_classification",
    "ssl_lab.evaluation.sts": "ssl_lab.evaluation.retrieval.sts",
    "ssl_lab.evaluation.translations": "ssl_lab.tasks.translation",
    "ssl_lab.evaluation.views": "ssl_lab.evaluation.geometry.view_spread",
    "ssl_lab.evaluation.zero_shot": "ssl_lab.evaluation.retrieval.zero_shot",
    "ssl_lab.methods.finetune.classification": "ssl_lab.tasks.text_classification",
    "ssl_lab.methods.finetune.question_answering": "ssl_lab.tasks.question_answering",
    "ssl_lab.methods.finetune.similarity": "ssl_lab.tasks.similarity",
    "ssl_lab.methods.finetune.token_classification": "ssl_lab.tasks.token_classification",
    "ssl_lab.methods.finetune.translation": "ssl_lab.tasks.translation",
}
"""Modules by their former names."""

RENAMED = {
    "ssl_lab.engine.logging.dashboards.WeightsAndBiases": "ssl_lab.engine.logging.weights_and_biases.WeightsAndBiases",
    "ssl_lab.evaluation.finetuned.Classes": "ssl_lab.tasks.classification.ClassScores",
    "ssl_lab.evaluation.finetuned.PairScores": "ssl_lab.tasks.similarity.PairScores",
    "ssl_lab.evaluation.finetuned.TextClasses": "ssl_lab.tasks.classification.ClassScores",
    "ssl_lab.tasks.text_classification.Classification": "ssl_lab.tasks.text_classification.TextClassification",
}
"""Classes that have another name, where they stand today."""


_OF_TEXT = ("vocab_size", "pad_id", "mask_id", "eos_id", "special_ids", "continues_word")


def renamed(node: Any) -> Any:
    """Plain settings in which each ``_target_`` names the place where the class stands today."""
    if isinstance(node, list):
        return [renamed(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: _today(value) if key == "_target_" else renamed(value) for key, value in node.items()}


def _today(target: Any) -> Any:
    if not isinstance(target, str):
        return target
    module, _, name = target.rpartition(".")
    today = f"{MOVED.get(module, module)}.{name}" if module else target
    return RENAMED.get(today, today)


def spec_of_today(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts of data as they are kept today, of those of a run from when one class held the facts of all modalities."""
    if "modality" not in facts:
        return facts
    kept = {name: value for name, value in facts.items() if value is not None}
    modality = kept["modality"]
    targets: dict[str, Any] = {}
    if "num_classes" in kept:
        classes = {"names": kept.get("class_names", []), "number": kept["num_classes"]}
        targets |= {column: {"_target_": "ssl_lab.types.Classes", **classes} for column in ("label", "token_labels")}
    if "target_vocab_size" in kept:
        sizes = {"length": kept["target_length"], "vocab_size": kept["target_vocab_size"]}
        ids = dict(zip(("pad_id", "begin_id", "end_id"), kept["target_ids"], strict=True))
        targets["target_input_ids"] = {"_target_": "ssl_lab.modalities.text.WrittenText", **sizes, **ids}
    image: dict[str, Any] = {"_target_": "ssl_lab.modalities.image.ImageSpec"}
    image |= {name: kept[name] for name in ("shape", "mean", "std") if name in kept}
    text: dict[str, Any] = {"_target_": "ssl_lab.modalities.text.TextSpec"}
    text |= {name: kept[name] for name in _OF_TEXT if name in kept} | {
        "length": kept.get("text_length", kept["shape"][0])
    }
    if modality == "image_text":
        return {"_target_": "ssl_lab.modalities.pair.PairSpec", "image": image, "text": text, "targets": targets}
    return {**(text if modality == "text" else image), "targets": targets}


class FormerNames(MetaPathFinder, Loader):
    """Imports a module by its former name, with a warning that says the new one."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """A module that has moved; what still stands at its place is found before."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of today in its place."""
        today = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is now {today}. Import it from there.", FutureWarning, stacklevel=2)
        sys.modules[module.__name__] = import_module(today)
