"""Display of the scores of fine-tuned models.

A new task declares its metrics in its own file, with :func:`finetuned`; those here are also read by reports.
"""

from __future__ import annotations

from collections.abc import Mapping

from ssl_lab.metrics import LATER, Metric, Table

FINETUNED = Table(
    key="finetuned",
    title="After fine-tuning",
    explanation="A head was trained on the labels of the train split, and with it what of the encoder was not frozen; the "
    "scores are those of the test split (mean ± standard deviation over seeds where there are several).",
    order=10,
)


def finetuned(column: str, *, percent: bool = True, order: int = LATER) -> Metric:
    """A score after fine-tuning; higher is better."""
    return Metric(column=column, table=FINETUNED, better="higher", percent=percent, order=(order,))


CLASSES_METRICS: Mapping[str, Metric] = {
    "finetune/accuracy": finetuned("accuracy, %", order=1),
    "finetune/recall": finetuned("mean recall, %", order=1),
    "finetune/macro_f1": finetuned("macro F1, %", order=1),
    "finetune/top5": finetuned("top-5 accuracy, %", order=1),
}
SCORES_METRICS: Mapping[str, Metric] = {
    "finetune/spearman": finetuned("Spearman correlation x 100", order=2),
    "finetune/pearson": finetuned("Pearson correlation x 100", order=2),
}
SPANS_METRICS: Mapping[str, Metric] = {
    "finetune/precision": finetuned("precision, %", order=3),
    "finetune/span_recall": finetuned("recall, %", order=3),
    "finetune/f1": finetuned("F1, %", order=3),
    "finetune/token_accuracy": finetuned("tokens right, %", order=3),
}
ANSWERS_METRICS: Mapping[str, Metric] = {
    "finetune/f1": finetuned("F1, %", order=4),
    "finetune/exact_match": finetuned("exact match, %", order=4),
}
TRANSLATIONS_METRICS: Mapping[str, Metric] = {
    "finetune/bleu": finetuned("BLEU", percent=False, order=5),
    "finetune/chrf": finetuned("chrF", percent=False, order=5),
}
DECLARED = (CLASSES_METRICS, SCORES_METRICS, SPANS_METRICS, ANSWERS_METRICS, TRANSLATIONS_METRICS)
"""All of them, for results that do not carry their descriptions."""
