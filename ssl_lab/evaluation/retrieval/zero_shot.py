"""Classification by the names of the classes alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ssl_lab.data.base import DataModule
from ssl_lab.data.pair.image_text import ImageTextPairs
from ssl_lab.data.text.tokenizer import load_tokenizer
from ssl_lab.evaluation.probes.metrics import ZERO_SHOT_METRICS
from ssl_lab.evaluation.probes.scores import class_counts, scores_of_counts
from ssl_lab.evaluation.protocol import StreamingProtocol, check_finite, check_none_broken
from ssl_lab.types import Batch


class ZeroShot(StreamingProtocol):
    """The class whose name, put into sentences, is most similar to the image; no labelled image is fitted.

    A class is the mean of its sentences' unit vectors, scaled to length 1 again, as in the paper.

    Metrics: ``zero_shot/top1``, ``zero_shot/macro_f1`` and ``zero_shot/recall`` (mean over classes), shares in [0, 1].

    Args:
        templates: Sentences with ``{}`` in place of the name, whose underscores become spaces.
        tokenizer: Folder or hub identifier of the tokenizer that the texts were trained with, such as RUN/tokenizer; None
            for that of the data.

    References:
        Radford et al., CLIP (2021), section 3.1.4. arXiv:2103.00020
    """

    metrics = ZERO_SHOT_METRICS
    needs: ClassVar[str] = "joint_embedding"
    needs_labels: ClassVar[bool] = True

    def __init__(self, *, templates: tuple[str, ...] = ("a photo of a {}.",), tokenizer: str | None = None) -> None:
        if not templates or any("{}" not in template for template in templates):
            raise ValueError(
                f"ZeroShot needs sentences with {{}} in place of the class, found {list(templates)}. Set "
                "templates=['a photo of a {}.'], the default."
            )
        self.templates = tuple(templates)
        self.tokenizer = tokenizer

    def prepare(
        self, fn: Callable[[Batch], Mapping[str, Tensor]], datamodule: DataModule, *, device: torch.device
    ) -> Tensor:
        """Unit vectors of the classes, (K, P).

        Raises:
            ValueError: If there is no tokenizer for the sentences, or the classes have no names.
        """
        names = [name.replace("_", " ") for name in datamodule.spec.class_names]
        if not names:
            raise ValueError(
                f"Zero-shot classification reads the names of classes, but those of {type(datamodule).__name__} have "
                "none. Choose data with named classes."
            )
        classes = self._embed_classes(fn, names, self._tokenizer_for(datamodule), device)
        check_finite(classes, "class-name")
        return classes

    def update(self, fn: Callable[[Batch], Mapping[str, Tensor]], batch: Batch, prepared: Tensor) -> dict[str, Tensor]:
        """Compare every image with every class in the space of ``fn(batch)``, unit vectors by kind."""
        images, labels = fn({"image": batch["image"]})["image"], batch["label"]
        known = labels >= 0
        predicted = (images @ prepared.T).argmax(1)
        return {
            "rows": torch.tensor(len(images)),
            "broken": (~images.isfinite().all(1)).sum(),
            "classes": class_counts(predicted[known], labels[known], len(prepared)),
        }

    def compute(self, sums: Mapping[str, Tensor], datamodule: DataModule, split: str) -> dict[str, float]:
        """Scores of the counts.

        Raises:
            ValueError: If the vector of an image is not finite.
        """
        check_none_broken(int(sums["broken"]), int(sums["rows"]), split)
        return scores_of_counts("zero_shot", sums["classes"])

    def _embed_classes(
        self,
        fn: Callable[[Batch], Mapping[str, Tensor]],
        names: list[str],
        tokenizer: PreTrainedTokenizerFast,
        device: torch.device,
    ) -> Tensor:
        """Unit vectors of the classes, (K, P)."""
        classes = []
        for name in names:
            sentences = [template.replace("{}", name) for template in self.templates]
            encoded = tokenizer(sentences, padding=True, padding_side="right", return_tensors="pt")
            batch = {key: encoded[key].to(device) for key in ("input_ids", "attention_mask")}
            classes.append(fn(batch)["text"].mean(0))
        return F.normalize(torch.stack(classes), dim=1)

    def _tokenizer_for(self, datamodule: DataModule) -> PreTrainedTokenizerFast:
        if self.tokenizer is not None:
            return load_tokenizer(self.tokenizer)
        if not isinstance(datamodule, ImageTextPairs):
            raise ValueError(
                f"Zero-shot classification tokenises the names of classes, but {type(datamodule).__name__} has no "
                "tokenizer. Set evaluation.zero_shot.tokenizer to RUN/tokenizer of the run that is judged."
            )
        return datamodule.tokenizer
