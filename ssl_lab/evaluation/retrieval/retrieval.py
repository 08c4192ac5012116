"""Do images find their captions, and captions their images?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import ClassVar

import torch
from torch import Tensor

from ssl_lab.data.base import DataModule
from ssl_lab.devices import wide
from ssl_lab.evaluation.protocol import Protocol, check_finite
from ssl_lab.evaluation.retrieval.metrics import RETRIEVAL_METRICS
from ssl_lab.modalities.pair import PairSpec
from ssl_lab.types import Batch

CHUNK = 1024


class Retrieval(Protocol):
    r"""Recall at k among all captions, or all images, of the split.

    ``retrieval/image_to_text_r<k>`` is the share of images that have one of their own captions among the k most similar
    of all captions; ``retrieval/text_to_image_r<k>`` the share of captions whose image is among the k most similar
    images; both in [0, 1]. Candidates as similar as the right one count as ahead of it, so that equal embeddings find
    nothing. It is not a number where so few candidates are there that any order finds the right one. ``..._chance``
    is what a random order would reach: k / N images, and for an image with n of M captions
    :math:`1 - \binom{M - n}{k} / \binom{M}{k}`.

    Args:
        recall_at: One or several k.

    References:
        Karpathy and Fei-Fei, Deep Visual-Semantic Alignments (2015), section 4.1. arXiv:1412.2306
    """

    metrics = RETRIEVAL_METRICS
    needs: ClassVar[str] = "joint_embedding"
    needs_columns: ClassVar[tuple[str, ...]] = ("captions",)
    columns_from: ClassVar[Mapping[str, str]] = {"captions": "data=image_text_pairs for captions"}

    def __init__(self, *, recall_at: tuple[int, ...] = (1, 5, 10)) -> None:
        if not recall_at or min(recall_at) < 1:
            raise ValueError(f"Retrieval needs every k >= 1, found {list(recall_at)}. Set recall_at=[1, 5, 10].")
        self.recall_at = tuple(recall_at)

    @torch.no_grad()
    def run(
        self,
        fn: Callable[[Batch], Mapping[str, Tensor]],
        datamodule: DataModule,
        *,
        device: torch.device,
        split: str = "test",
    ) -> dict[str, float]:
        """Embed all images and captions with ``fn(batch)``, unit vectors by kind, and rank them."""
        pad_id = PairSpec.of(datamodule.spec, "Retrieval").text.pad_id
        assert pad_id is not None
        images, texts, owners = [], [], []
        for batch in datamodule.eval_dataloader(split):
            images.append(fn({"image": batch["image"].to(device)})["image"])
            present = batch["captions"][:, :, 0].ne(pad_id)
            owners.append(batch["index"].unsqueeze(1).expand_as(present)[present])
            for ids in batch["captions"][present].to(device).split(len(batch["index"])):
                mask = ids.ne(pad_id).long()
                texts.append(fn({"input_ids": ids, "attention_mask": mask})["text"])
        return self.score(torch.cat(images), torch.cat(texts), torch.cat(owners).to(device))

    def score(self, images: Tensor, texts: Tensor, owners: Tensor) -> dict[str, float]:
        """Recall of unit vectors.

        Args:
            images: Shape (N, P).
            texts: Shape (M, P).
            owners: The image of each text, int64 (M,).
        """
        check_finite(images, "image")
        check_finite(texts, "text")
        ahead: dict[str, list[Tensor]] = {"image_to_text": [], "text_to_image": []}
        for start in range(0, len(images), CHUNK):
            similarity = images[start : start + CHUNK] @ texts.T
            own = owners == torch.arange(start, start + len(similarity), device=owners.device).unsqueeze(1)
            best = similarity.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
            ahead["image_to_text"].append(((similarity >= best) & ~own).sum(1))
        for chunk, owner in zip(texts.split(CHUNK), owners.split(CHUNK), strict=True):
            similarity = chunk @ images.T
            ahead["text_to_image"].append((similarity >= similarity.gather(1, owner.unsqueeze(1))).sum(1) - 1)
        num_captions = owners.bincount(minlength=len(images)).tolist()
        chances = {
            "image_to_text": [(num_right, len(texts)) for num_right in num_captions],
            "text_to_image": [(1, len(images))],
        }
        metrics = {}
        for k in self.recall_at:
            for direction, counts in ahead.items():
                name = f"retrieval/{direction}_r{k}"
                chance = fmean(_chance(*numbers, k=k) for numbers in chances[direction])
                metrics[name] = float(wide(torch.cat(counts) < k).mean()) if chance < 1 else math.nan
                metrics[f"{name}_chance"] = chance
        return metrics


def _chance(num_right: int, num_candidates: int, *, k: int) -> float:
    """Probability that one of the right candidates is among the first k of a random order."""
    k = min(k, num_candidates)
    return 1 - math.comb(num_candidates - num_right, k) / math.comb(num_candidates, k)
