"""What metric names mean to a reader: a label, a unit, a direction, and the table and panel they belong to."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from ssl_lab.measured import base_name, way_of

Better: TypeAlias = Literal["higher", "lower", ""]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How one metric is shown.

    Attributes:
        table: Key of the results table it belongs to; empty if it is drawn elsewhere.
        column: Head of its column.
        panel: Title of the learning-curve panel it is drawn in; the column's head if not given.
        line: Its name in that panel's legend.
        reference: For a yardstick that comes with every row, the name of the row that holds it; else empty.
        better: Which direction is better; empty if neither is.
        percent: Whether values are shares in [0, 1] that are shown in percent.
        competes: Whether it may be the best of its column; False for a bound that no method is expected to pass.
        format: Format specification of a shown value.
        order: Where its column stands in the table.
    """

    table: str
    column: str
    panel: str = ""
    line: str = "model"
    reference: str = ""
    better: Better = ""
    percent: bool = False
    competes: bool = True
    format: str = ".1f"
    order: tuple[int, ...] = ()

    @property
    def arrow(self) -> str:
        """``↑`` if higher is better, ``↓`` if lower is, else empty."""
        return {"higher": "↑", "lower": "↓", "": ""}[self.better]

    def show(self, value: float | None) -> str:
        """A value as text, in percent where the metric is a share; a dash if there is none."""
        if value is None:
            return "–"
        if not math.isfinite(value):
            return "not finite"
        return format(100 * value if self.percent else value, self.format)


def _accuracy(column: str) -> Metric:
    return Metric(table="features", column=column, panel="Accuracy, %", line=column, better="higher", percent=True)


def _online(line: str) -> Metric:
    panel = "Accuracy on training batches, %"
    return Metric(table="", column=f"{line} on training batches", panel=panel, line=line, better="higher", percent=True)


def _finetuned(column: str, *, percent: bool = True) -> Metric:
    return Metric(table="finetuned", column=column, panel=column, better="higher", percent=percent)


def _other_score(probe: str, score: str) -> Metric:
    column = f"{probe}, {score}"
    return Metric(table="other_scores", column=column, panel=f"{score}, %", line=probe, better="higher", percent=True)


def _recall(found: str, asked: str) -> Metric:
    panel = f"{found.capitalize()} of {asked}, recall, %"
    table = f"retrieval_{found}"
    return Metric(table=table, column="recall@{0}", panel=panel, line="recall@{0}", better="higher", percent=True)


def _masked(column: str, better: Better, *, percent: bool = False, format: str = ".1f") -> Metric:
    return Metric(table="masked", column=column, better=better, percent=percent, format=format)


def _language(column: str, better: Better = "lower", *, format: str = ".1f") -> Metric:
    return Metric(table="language", column=column, better=better, format=format)


def _nats(column: str, better: Better = "") -> Metric:
    return Metric(table="likelihood", column=column, panel=f"{column}, nats per image", better=better)


def _distance(column: str) -> Metric:
    return Metric(table="samples", column=column, line="samples", better="lower", format=".4g")


def _disentangled(column: str) -> Metric:
    return Metric(table="disentanglement", column=column, better="higher", format=".3f")


def _label_free(column: str, better: Better, *, format: str = ".2f") -> Metric:
    return Metric(table="label_free", column=column, better=better, competes=False, format=format)


_CHANCE = "guessing (chance)"
_IMAGE_TO_TEXT = _recall("caption", "an image")
_TEXT_TO_IMAGE = _recall("image", "a caption")
_UNIGRAM = "word frequencies alone (unigram)"
_FACTORISED = "independent pixels (factorised)"
_REAL = "real images (floor)"
_PERPLEXITY = _masked("masked perplexity", "lower")
_MASKED_ACCURACY = _masked("hidden words guessed right, %", "higher", percent=True)
_MASKED_LOSS = _masked("cross entropy, nats", "lower", format=".3f")
_TOKEN_PERPLEXITY = _language("perplexity per token")
_BITS = Metric(table="likelihood", column="bits per pixel value", better="lower", format=".3f")
_FID = _distance("FID, {0} samples against {1} train images")
_FRECHET = _distance("Fréchet distance, {0}")
_FRECHET_N = _distance("Fréchet distance, {0}, {1} samples")
_KID = _distance("kernel distance (KID), {0}")
_KID_N = _distance("kernel distance (KID), {0}, {1} samples")
_SUPPORT_N = Metric(table="support", column="{0}, {1}, {2} samples, %", line="samples", better="higher", percent=True)


def _by_chance(metric: Metric) -> Metric:
    return replace(metric, reference=_CHANCE, line=f"{metric.line} by chance")


def _floor(metric: Metric) -> Metric:
    return replace(metric, reference=_REAL, line=_REAL, competes=False)


# The first pattern that matches a whole name wins; {0}, {1} in labels are its groups. The order is the columns' order.
_PATTERNS: tuple[tuple[str, Metric], ...] = (
    (r"knn/top1", _accuracy("kNN")),
    (r"knn/top1_k(\d+)", _accuracy("kNN, k = {0}")),
    (r"linear/top1", _accuracy("linear probe")),
    (r"zero_shot/top1", _accuracy("zero-shot")),
    (r"few_label/top1_n(1)", _accuracy("1 label per class")),
    (r"few_label/top1_n(\d+)", _accuracy("{0} labels per class")),
    (r"online_linear/top1", _accuracy("online linear probe")),
    (r"online/linear/top1", _online("online linear probe")),
    (r"online/knn/top1", _online("online kNN")),
    (r"knn/macro_f1", _other_score("kNN", "macro F1")),
    (r"knn/recall", _other_score("kNN", "mean recall")),
    (r"zero_shot/macro_f1", _other_score("zero-shot", "macro F1")),
    (r"zero_shot/recall", _other_score("zero-shot", "mean recall")),
    (r"linear/macro_f1", _other_score("linear probe", "macro F1")),
    (r"linear/recall", _other_score("linear probe", "mean recall")),
    (r"few_label/macro_f1_n(\d+)", _other_score("{0} per class", "macro F1")),
    (r"few_label/recall_n(\d+)", _other_score("{0} per class", "mean recall")),
    (r"finetune/accuracy", _finetuned("accuracy, %")),
    (r"finetune/recall", _finetuned("mean recall, %")),
    (r"finetune/macro_f1", _finetuned("macro F1, %")),
    (r"finetune/spearman", _finetuned("Spearman correlation x 100")),
    (r"finetune/pearson", _finetuned("Pearson correlation x 100")),
    (r"finetune/precision", _finetuned("precision, %")),
    (r"finetune/span_recall", _finetuned("recall, %")),
    (r"finetune/f1", _finetuned("F1, %")),
    (r"finetune/token_accuracy", _finetuned("tokens right, %")),
    (r"finetune/exact_match", _finetuned("exact match, %")),
    (r"finetune/bleu", _finetuned("BLEU", percent=False)),
    (r"finetune/chrf", _finetuned("chrF", percent=False)),
    (r"sts/spearman", Metric(table="similarity", column="Spearman correlation x 100", better="higher", percent=True)),
    (r"retrieval/image_to_text_r(\d+)", _IMAGE_TO_TEXT),
    (r"retrieval/text_to_image_r(\d+)", _TEXT_TO_IMAGE),
    (r"retrieval/image_to_text_r(\d+)_chance", _by_chance(_IMAGE_TO_TEXT)),
    (r"retrieval/text_to_image_r(\d+)_chance", _by_chance(_TEXT_TO_IMAGE)),
    (r"rankme/rank", _label_free("RankMe", "higher", format=".1f")),
    (r"lidar/rank", _label_free("LiDAR", "higher", format=".1f")),
    (r"alignment/loss", _label_free("alignment", "lower")),
    (r"uniformity/loss", _label_free("uniformity", "lower")),
    (r"feature_std/mean", _label_free("spread", "higher", format=".3f")),
    (r"masked/perplexity", _PERPLEXITY),
    (r"masked/unigram_perplexity", replace(_PERPLEXITY, reference=_UNIGRAM, line=_UNIGRAM)),
    (r"masked/accuracy", _MASKED_ACCURACY),
    (r"masked/unigram_accuracy", replace(_MASKED_ACCURACY, reference=_UNIGRAM, line=_UNIGRAM)),
    (r"masked/loss", _MASKED_LOSS),
    (r"masked/unigram_loss", replace(_MASKED_LOSS, reference=_UNIGRAM, line=_UNIGRAM)),
    (r"pseudo_perplexity/perplexity", _masked("pseudo-perplexity", "lower")),
    (r"pseudo_perplexity/loss", _masked("pseudo cross entropy, nats", "lower", format=".3f")),
    (r"language_modelling/bits_per_byte", _language("bits per byte", format=".3f")),
    (r"language_modelling/perplexity", _TOKEN_PERPLEXITY),
    (r"language_modelling/unigram_perplexity", replace(_TOKEN_PERPLEXITY, reference=_UNIGRAM, line=_UNIGRAM)),
    (r"language_modelling/word_perplexity", _language("perplexity per word")),
    (r"language_modelling/byte_perplexity", _language("perplexity per byte", format=".3f")),
    (r"language_modelling/loss", _language("cross entropy, nats per token", format=".3f")),
    (r"denoising/perplexity", _language("perplexity of spans")),
    (r"denoising/loss", _language("cross entropy of spans, nats", format=".3f")),
    (r"elbo/bits_per_dim", _BITS),
    (r"elbo/baseline_bits_per_dim", replace(_BITS, reference=_FACTORISED, line=_FACTORISED)),
    (r"elbo/elbo", _nats("ELBO", "higher")),
    (r"elbo/reconstruction", _nats("reconstruction")),
    (r"elbo/kl", _nats("KL")),
    (r"elbo/kl_dim_(\d+)", Metric(table="", column="KL of latent {0}, nats")),
    (r"elbo/active_units", Metric(table="likelihood", column="active latents", format=".0f")),
    (r"nll/nats_k(\d+)", _nats("NLL, {0} samples", "lower")),
    (r"nll/effective_samples_k(\d+)", Metric(table="likelihood", column="effective of {0} samples", better="higher",
                                             competes=False)),
    (r"codes/nats", Metric(table="likelihood", column="nats per code", better="lower", format=".3f")),
    (r"codes/perplexity", Metric(table="likelihood", column="perplexity of codes", better="lower")),
    (r"codes/bits_per_dim", replace(_BITS, column="bits of codes per pixel value")),
    (r"mig/mig", _disentangled("mutual information gap (MIG)")),
    (r"mig/factor_(\d+)", Metric(table="", column="MIG of factor {0}", percent=True)),
    (r"dci/(disentanglement|completeness|informativeness)", _disentangled("{0} (DCI)")),
    (r"fid/bilinear_n(\d+)_train(\d+)", _FID),
    (r"frechet/(.+)_n(\d+)_real", _floor(_FRECHET_N)),
    (r"frechet/(.+)_n(\d+)", _FRECHET_N),
    (r"frechet/(.+)_real", _floor(_FRECHET)),
    (r"frechet/(.+)", _FRECHET),
    (r"kid/(.+)_n(\d+)_real", _floor(_KID_N)),
    (r"kid/(.+)_n(\d+)", _KID_N),
    (r"kid/(.+)_real", _floor(_KID)),
    (r"kid/(.+)", _KID),
    (r"(precision|recall|density|coverage)/(.+)_n(\d+)_real", _floor(_SUPPORT_N)),
    (r"(precision|recall|density|coverage)/(.+)_n(\d+)", _SUPPORT_N),
    (r"samples/min_class_share", Metric(table="samples", column="rarest class among samples, %", better="higher",
                                        percent=True)),
    (r"samples/class_share_(\d+)", Metric(table="", column="class {0}", percent=True)),
    (r"samples/classifier_top1", Metric(table="", column="classifier on real images", percent=True)),
)  # fmt: skip

TABLES: dict[str, tuple[str, str]] = {
    "finetuned": (
        "After fine-tuning",
        "Encoder and head were trained together on the labels of the train split; the scores are those of the test split "
        "(mean ± standard deviation over seeds where there are several).",
    ),
    "features": (
        "Accuracy of frozen features, %",
        "The encoder is frozen; a simple classifier reads its features. kNN asks the nearest labelled neighbours; the "
        "linear probe is fitted on all labels, or on a few per class (mean ± standard deviation over random draws of "
        "the labelled samples).",
    ),
    "similarity": (
        "Sentence similarity",
        "The encoder is frozen. Pairs of sentences are ranked by the cosine of their features and by people's scores; the "
        "Spearman correlation of both ranks is 100 if they agree and 0 if they have nothing to do with each other.",
    ),
    "retrieval_caption": (
        "Finding the caption of an image, %",
        "How often one of an image's own captions is among the 1, 5 or 10 most similar of all captions of the split.",
    ),
    "retrieval_image": (
        "Finding the image of a caption, %",
        "How often the image that a caption describes is among the 1, 5 or 10 most similar of all images of the split.",
    ),
    "label_free": (
        "Features without labels",
        "Nothing here reads a label, and no row wins: the numbers compare runs of one method and show collapse. RankMe "
        "counts the directions that features use, LiDAR those that tell samples apart in spite of random views. "
        "Alignment is the distance between views of one sample, uniformity how unevenly samples cover the sphere: both "
        "are losses. Spread is 0 if all samples have the same features and at most 1.",
    ),
    "masked": (
        "Guessing hidden words",
        "Some words are hidden and the model guesses them from the rest of the sentence. Masked perplexity is the "
        "number of equally likely words it hesitates between.",
    ),
    "language": (
        "Predicting unseen text",
        "The model reads a text and predicts each token, or each token of a span that was cut out, from those before it. "
        "Perplexity is the number of equally likely tokens it hesitates between; bits per byte are what it would need to "
        "store the text, and compare models with different tokenizers.",
    ),
    "likelihood": (
        "Likelihood of unseen images (ELBO and its parts in nats per image)",
        "Bits per pixel value are what the model would need to store an unseen image: an upper bound, from the "
        "evidence lower bound (ELBO = −reconstruction − KL).",
    ),
    "samples": (
        "Quality of samples",
        "Distances between generated and real images, measured on the named features; the floor is the same distance "
        "between two sets of real images.",
    ),
    "support": (
        "Plausible samples, and all kinds of images",
        "Precision and density say how often a sample lies among real images, recall and coverage how many real images have "
        "samples near them, measured on the named features. Density may exceed 100.",
    ),
    "disentanglement": (
        "Latent dimensions and factors",
        "Images were drawn from known factors. 1 means that each latent dimension stands for one factor (disentanglement), "
        "each factor is in one dimension (completeness, mutual information gap), and all can be read (informativeness).",
    ),
    "other": ("Other metrics", ""),
    "other_scores": ("Macro F1 and mean recall, %", "Both weigh every class equally, however rare it is."),
}
"""Title and explanation of each results table, in the order in which they are shown."""


def describe(name: str) -> Metric:
    """What a metric such as ``knn/top1`` means; a plain description under its own name if it is unknown."""
    way = way_of(name)
    if way:  # of several in which this metric was measured
        plain = describe(base_name(name))
        column, line = (f"{text}, {way}" for text in (plain.column, plain.line))
        reference = f"{plain.reference}, {way}" if plain.reference else ""
        panel = column if plain.panel == plain.column else plain.panel
        order = (*plain.order, *map(int, re.findall(r"\d+", way)))
        return replace(plain, column=column, line=line, panel=panel, reference=reference, order=order)
    for place, (pattern, metric) in enumerate(_PATTERNS):
        if match := re.fullmatch(pattern, name):
            groups = match.groups()
            column = metric.column.format(*groups)
            order = (place, *(int(group) for group in groups if group.isdigit()))
            return replace(
                metric, column=column, panel=metric.panel or column, line=metric.line.format(*groups), order=order
            )
    return Metric(table="other", column=name, panel=name, format=".4g", order=(len(_PATTERNS),))


def duration(seconds: float | None) -> str:
    """A wall time in the two units that matter: ``1 h 12 min``, ``4 min 5 s``, ``8.3 s``."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
