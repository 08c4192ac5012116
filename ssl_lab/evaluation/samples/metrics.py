"""Display of metrics of sample quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ssl_lab.metrics import Metric, Table

SAMPLES = Table(
    key="samples",
    title="Quality of samples",
    explanation="Distances between generated and real images, measured on the named features; the floor is the same "
    "distance between two sets of real images.",
    order=85,
)
SUPPORT = Table(
    key="support",
    title="Plausible samples, and all kinds of images",
    explanation="Precision and density say how often a sample lies among real images, recall and coverage how many real "
    "images have samples near them, measured on the named features. Compare all with the values of real images. A dash: "
    "precision and density are withheld, as samples lie deeper among real images than real images do or reach none of their "
    "kinds, which blurred and repeated images do.",
    order=90,
)
_FLOOR = "real images (floor)"
_SHARE = Metric(column="", table=SUPPORT, line="samples", better="higher", percent=True)


def _distance(column: str, *, order: int = 2) -> Metric:
    return Metric(column=column, table=SAMPLES, line="samples", better="lower", format=".4g", order=(order,))


def _with_floor(name: str, metric: Metric) -> dict[str, Metric]:
    """A metric, and ``<name>_real``, which a perfect generator would reach."""
    return {f"{name}_real": replace(metric, reference=_FLOOR, line=_FLOOR, competes=False), name: metric}


FID_METRICS: Mapping[str, Metric] = {
    "fid/bilinear_n#_train#": _distance("FID, {0} samples against {1} train images", order=1)
}
SAMPLE_QUALITY_METRICS: Mapping[str, Metric] = {
    **_with_floor("frechet/*_n#", _distance("Fréchet distance, {0}, {1} samples")),
    **_with_floor("frechet/*", _distance("Fréchet distance, {0}")),
    **_with_floor("kid/*_n#", _distance("kernel distance (KID), {0}, {1} samples")),
    **_with_floor("kid/*", _distance("kernel distance (KID), {0}")),
    **{
        pattern: metric
        for kind in ("precision", "recall", "density", "coverage")
        for pattern, metric in _with_floor(
            f"{kind}/*_n#", replace(_SHARE, column=f"{kind}, {{0}}, {{1}} samples, %")
        ).items()
    },
    **_with_floor(
        "samples/min_class_share",
        Metric(column="rarest class among samples, %", table=SAMPLES, better="higher", percent=True),
    ),
    "samples/judge_top1": Metric(
        column="accuracy of the judge of classes, %",
        table=SAMPLES,
        percent=True,
        competes=False,
        explanation="A small network that is trained on the data's labels tells the classes of samples; its accuracy is that "
        "on real images.",
    ),
    "samples/class_share_#": Metric(column="class {0}", table=None, percent=True),
    "samples/classifier_top1": Metric(column="classifier on real images", table=None, percent=True),  # of older runs
    "samples/precision_withheld": Metric(column="precision, withheld", table=None, percent=True),
    "samples/density_withheld": Metric(column="density, withheld", table=None, percent=True),
}
DECLARED = (FID_METRICS, SAMPLE_QUALITY_METRICS)
"""All of them, for results that do not carry their descriptions."""
