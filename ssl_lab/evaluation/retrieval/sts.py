"""Semantic textual similarity: do similar features mean similar texts?"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from scipy.stats import spearmanr
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.devices import wide
from ssl_lab.evaluation.protocol import Protocol, unit_rows
from ssl_lab.evaluation.retrieval.metrics import STS_METRICS
from ssl_lab.types import Batch


class STS(Protocol):
    """Rank correlation of cosine similarities with the scores that people gave to pairs of texts; nothing is fitted.

    Metric: ``sts/spearman``, in [-1, 1] over all scored pairs of the split (papers write it x 100); equal values share
    their mean rank. It is not a number if all similarities are equal.

    References:
        Cer et al., SemEval-2017 Task 1: Semantic Textual Similarity (2017). arXiv:1708.00055
        Gao et al., SimCSE (2021), appendix B, on why all pairs and not the mean over subsets. arXiv:2104.08821
    """

    metrics = STS_METRICS
    needs: ClassVar[str] = "features"
    needs_columns: ClassVar[tuple[str, ...]] = ("second_input_ids", "score")
    columns_from: ClassVar[Mapping[str, str]] = {
        "second_input_ids": "data=text_pairs for pairs of texts",
        "score": "data=text_pairs with data.score_column",
    }

    @torch.no_grad()
    def run(
        self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Correlate the cosine of both texts' features ``fn(batch)`` with their scores.

        Raises:
            ValueError: If fewer than two pairs of the split are scored.
        """
        similarities, scores = [], []
        for batch in datamodule.eval_dataloader(split):
            first, second = (
                wide(fn({name: batch[kind + name].to(device) for name in ("input_ids", "attention_mask")}))
                for kind in ("", "second_")
            )
            similarities.append((unit_rows(first) * unit_rows(second)).sum(1).cpu())
            scores.append(wide(batch["score"]).cpu())
        x, y = torch.cat(similarities), torch.cat(scores)
        known = ~y.isnan()
        if known.sum() < 2:
            raise ValueError(
                f"Cannot score a rank correlation on the {split} split: {int(known.sum())} of its {len(y)} pairs have "
                "a score. Set data.score_column, or score another split."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about constant similarities: the result says so
            return {"sts/spearman": float(spearmanr(x[known].numpy(), y[known].numpy()).statistic)}
