"""Display of metrics of feature geometry."""

from __future__ import annotations

from collections.abc import Mapping

from ssl_lab.metrics import Better, Metric, Table

LABEL_FREE = Table(
    key="label_free",
    title="Features without labels",
    explanation="Nothing here reads a label, and no row wins: the numbers compare runs of one method and show collapse.",
    order=60,
)
DISENTANGLEMENT = Table(
    key="disentanglement",
    title="Latent dimensions and factors",
    explanation="Images were drawn from known factors. 1 means that each latent dimension stands for one factor "
    "(disentanglement), each factor is in one dimension (completeness, mutual information gap), and all can be read "
    "(informativeness).",
    order=95,
)


def _label_free(column: str, better: Better, explanation: str, *, format: str = ".2f", order: int) -> Metric:
    return Metric(
        column=column,
        table=LABEL_FREE,
        better=better,
        competes=False,
        format=format,
        order=(order,),
        explanation=explanation,
    )


def _disentangled(column: str, *, order: int) -> Metric:
    return Metric(column=column, table=DISENTANGLEMENT, better="higher", format=".3f", order=(order,))


RANKME_METRICS: Mapping[str, Metric] = {
    "rankme/rank": _label_free(
        "RankMe", "higher", "RankMe counts the directions that features use.", format=".1f", order=1
    )
}
LIDAR_METRICS: Mapping[str, Metric] = {
    "lidar/rank": _label_free(
        "LiDAR",
        "higher",
        "LiDAR counts the directions that tell samples apart in spite of random views.",
        format=".1f",
        order=2,
    )
}
ALIGNMENT_METRICS: Mapping[str, Metric] = {
    "alignment/loss": _label_free(
        "alignment", "lower", "Alignment is a loss: the distance between views of one sample.", order=3
    )
}
UNIFORMITY_METRICS: Mapping[str, Metric] = {
    "uniformity/loss": _label_free(
        "uniformity", "lower", "Uniformity is a loss: how unevenly samples cover the sphere.", order=4
    )
}
FEATURE_STD_METRICS: Mapping[str, Metric] = {
    "feature_std/mean": _label_free(
        "spread",
        "higher",
        "Spread is 0 if all samples have the same features and at most 1.",
        format=".3f",
        order=5,
    )
}
MIG_METRICS: Mapping[str, Metric] = {
    "mig/mig": _disentangled("mutual information gap (MIG)", order=1),
    "mig/factor_#": Metric(column="MIG of factor {0}", table=None, percent=True),
}
DCI_METRICS: Mapping[str, Metric] = {
    f"dci/{name}": _disentangled(f"{name} (DCI)", order=2)
    for name in ("disentanglement", "completeness", "informativeness")
}
DECLARED = (
    RANKME_METRICS,
    LIDAR_METRICS,
    ALIGNMENT_METRICS,
    UNIFORMITY_METRICS,
    FEATURE_STD_METRICS,
    MIG_METRICS,
    DCI_METRICS,
)
"""All of them, for results that do not carry their descriptions."""
