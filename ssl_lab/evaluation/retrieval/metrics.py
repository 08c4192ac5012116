"""Display of similarity and retrieval metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ssl_lab.metrics import Metric, Table

SIMILARITY = Table(
    key="similarity",
    title="Sentence similarity",
    explanation="The encoder is frozen. Pairs of sentences are ranked by the cosine of their features and by people's "
    "scores; the Spearman correlation of both ranks is 100 if they agree and 0 if they have nothing to do with each other.",
    order=30,
)
CAPTIONS = Table(
    key="retrieval_caption",
    title="Finding the caption of an image, %",
    explanation="How often one of an image's own captions is among the 1, 5 or 10 most similar of all captions of the split.",
    order=40,
)
IMAGES = Table(
    key="retrieval_image",
    title="Finding the image of a caption, %",
    explanation="How often the image that a caption describes is among the 1, 5 or 10 most similar of all images of the "
    "split.",
    order=50,
)


def _recall(table: Table, panel: str) -> Metric:
    line = "recall@{0}"
    return Metric(column=line, table=table, panel=f"{panel}, recall, %", line=line, better="higher", percent=True)


def _by_chance(metric: Metric) -> Metric:
    return replace(metric, reference="guessing (chance)", line=f"{metric.line} by chance")


_CAPTION = _recall(CAPTIONS, "Caption of an image")
_IMAGE = _recall(IMAGES, "Image of a caption")
STS_METRICS: Mapping[str, Metric] = {
    "sts/spearman": Metric(column="Spearman correlation x 100", table=SIMILARITY, better="higher", percent=True)
}
RETRIEVAL_METRICS: Mapping[str, Metric] = {
    "retrieval/image_to_text_r#": _CAPTION,
    "retrieval/text_to_image_r#": _IMAGE,
    "retrieval/image_to_text_r#_chance": _by_chance(_CAPTION),
    "retrieval/text_to_image_r#_chance": _by_chance(_IMAGE),
}
DECLARED = (STS_METRICS, RETRIEVAL_METRICS)
"""All of them, for results that do not carry their descriptions."""
