"""Display of accuracies of frozen features."""

from __future__ import annotations

from collections.abc import Mapping

from ssl_lab.metrics import Metric, Table

FEATURES = Table(
    key="features",
    title="Accuracy of frozen features, %",
    explanation="The encoder is frozen; a simple classifier reads its features.",
    order=20,
)
OTHER_SCORES = Table(
    key="other_scores",
    title="Macro F1 and mean recall, %",
    explanation="Both weigh every class equally, however rare it is.",
    order=10_000,
    secondary=True,
)


def accuracy(column: str, *, order: int, explanation: str = "") -> Metric:
    """Accuracy of one classifier."""
    return Metric(
        column=column,
        table=FEATURES,
        panel="Accuracy, %",
        line=column,
        better="higher",
        percent=True,
        order=(order,),
        explanation=explanation,
    )


def other_scores(name: str, classifier: str, *, end: str = "", order: int) -> dict[str, Metric]:
    """Macro F1 and mean recall of a classifier, ``<name>/macro_f1`` and ``<name>/recall``."""
    return {
        f"{name}/{score}{end}": Metric(
            column=f"{classifier}, {title}",
            table=OTHER_SCORES,
            panel=f"{title}, %",
            line=classifier,
            better="higher",
            percent=True,
            order=(order,),
        )
        for score, title in (("macro_f1", "macro F1"), ("recall", "mean recall"))
    }


_KNN = "kNN asks the nearest labelled neighbours."
_FEW_LABELS = (
    "With a few labels per class the probe is fitted on these alone (mean ± standard deviation over random draws of "
    "the labelled samples)."
)
KNN_METRICS: Mapping[str, Metric] = {
    "knn/top1": accuracy("kNN", order=1, explanation=_KNN),
    "knn/top1_k#": accuracy("kNN, k = {0}", order=1, explanation=_KNN),
    **other_scores("knn", "kNN", order=1),
}
ZERO_SHOT_METRICS: Mapping[str, Metric] = {
    "zero_shot/top1": accuracy(
        "zero-shot", order=3, explanation="Zero-shot takes the class whose caption is most similar to the image."
    ),
    **other_scores("zero_shot", "zero-shot", order=2),
}
LINEAR_METRICS: Mapping[str, Metric] = {
    "linear/top1": accuracy(
        "linear probe", order=2, explanation="The linear probe is fitted on all labels of the train split."
    ),
    **other_scores("linear", "linear probe", order=3),
}
FEW_LABEL_METRICS: Mapping[str, Metric] = {
    "few_label/top1_n1": accuracy("1 label per class", order=4, explanation=_FEW_LABELS),
    "few_label/top1_n#": accuracy("{0} labels per class", order=4, explanation=_FEW_LABELS),
    **other_scores("few_label", "{0} per class", end="_n#", order=4),
}
ONLINE_LINEAR_METRICS: Mapping[str, Metric] = {"online_linear/top1": accuracy("online linear probe", order=5)}
DECLARED = (KNN_METRICS, ZERO_SHOT_METRICS, LINEAR_METRICS, FEW_LABEL_METRICS, ONLINE_LINEAR_METRICS)
"""All of them, for results that do not carry their descriptions."""
