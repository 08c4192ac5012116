"""Display of likelihoods and perplexities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ssl_lab.metrics import Better, Metric, Table

MASKED = Table(
    key="masked",
    title="Guessing hidden words",
    explanation="Some words are hidden and the model guesses them from the rest of the sentence. Masked perplexity is the "
    "number of equally likely words it hesitates between.",
    order=70,
)
LANGUAGE = Table(
    key="language",
    title="Predicting unseen text",
    explanation="The model reads a text and predicts each token, or each token of a span that was cut out, from those "
    "before it. Perplexity is the number of equally likely tokens it hesitates between; bits per byte are what it would "
    "need to store the text, and compare models with different tokenizers.",
    order=75,
)
LIKELIHOOD = Table(
    key="likelihood",
    title="Likelihood of unseen images (ELBO and its parts in nats per image)",
    explanation="Bits per pixel value are what the model would need to store an unseen image: an upper bound, from the "
    "evidence lower bound (ELBO = −reconstruction − KL).",
    order=80,
)
_UNIGRAM = "word frequencies alone (unigram)"
_FACTORISED = "independent pixels (factorised)"


def _masked(column: str, better: Better, *, percent: bool = False, format: str = ".1f", order: int = 1) -> Metric:
    return Metric(column=column, table=MASKED, better=better, percent=percent, format=format, order=(order,))


def _language(column: str, *, format: str = ".1f", order: int = 1) -> Metric:
    return Metric(column=column, table=LANGUAGE, better="lower", format=format, order=(order,))


def _likelihood(column: str, better: Better, *, format: str = ".1f", competes: bool = True, order: int) -> Metric:
    return Metric(column=column, table=LIKELIHOOD, better=better, format=format, competes=competes, order=(order,))


def _nats(column: str, better: Better = "", *, order: int) -> Metric:
    return replace(_likelihood(column, better, order=order), panel=f"{column}, nats per image")


def _by(row: str, metric: Metric) -> Metric:
    """The same of a yardstick."""
    return replace(metric, reference=row, line=row)


_PERPLEXITY = _masked("masked perplexity", "lower")
_ACCURACY = _masked("hidden words guessed right, %", "higher", percent=True)
_LOSS = _masked("cross entropy, nats", "lower", format=".3f")
_TOKEN_PERPLEXITY = _language("perplexity per token")
_BITS = _likelihood("bits per pixel value", "lower", format=".3f", order=1)

MASKED_PREDICTION_METRICS: Mapping[str, Metric] = {
    "masked/perplexity": _PERPLEXITY,
    "masked/unigram_perplexity": _by(_UNIGRAM, _PERPLEXITY),
    "masked/accuracy": _ACCURACY,
    "masked/unigram_accuracy": _by(_UNIGRAM, _ACCURACY),
    "masked/loss": _LOSS,
    "masked/unigram_loss": _by(_UNIGRAM, _LOSS),
}
PSEUDO_PERPLEXITY_METRICS: Mapping[str, Metric] = {
    "pseudo_perplexity/perplexity": _masked("pseudo-perplexity", "lower", order=2),
    "pseudo_perplexity/loss": _masked("pseudo cross entropy, nats", "lower", format=".3f", order=2),
}
LANGUAGE_MODELLING_METRICS: Mapping[str, Metric] = {
    "language_modelling/bits_per_byte": _language("bits per byte", format=".3f"),
    "language_modelling/perplexity": _TOKEN_PERPLEXITY,
    "language_modelling/unigram_perplexity": _by(_UNIGRAM, _TOKEN_PERPLEXITY),
    "language_modelling/word_perplexity": _language("perplexity per word"),
    "language_modelling/byte_perplexity": _language("perplexity per byte", format=".3f"),
    "language_modelling/loss": _language("cross entropy, nats per token", format=".3f"),
}
DENOISING_METRICS: Mapping[str, Metric] = {
    "denoising/perplexity": _language("perplexity of spans", order=2),
    "denoising/loss": _language("cross entropy of spans, nats", format=".3f", order=2),
}
BOUND_METRICS: Mapping[str, Metric] = {
    "elbo/bits_per_dim": _BITS,
    "elbo/baseline_bits_per_dim": _by(_FACTORISED, _BITS),
    "elbo/elbo": _nats("ELBO", "higher", order=1),
    "elbo/reconstruction": _nats("reconstruction", order=1),
    "elbo/kl": _nats("KL", order=1),
}
LATENT_USE_METRICS: Mapping[str, Metric] = {
    "elbo/kl_dim_#": Metric(column="KL of latent {0}, nats", table=None),
    "elbo/active_units": _likelihood("active latents", "", format=".0f", order=2),
}
NLL_METRICS: Mapping[str, Metric] = {
    "nll/nats_k#": _nats("NLL, {0} samples", "lower", order=3),
    "nll/effective_samples_k#": _likelihood("effective of {0} samples", "higher", competes=False, order=3),
}
CODES_METRICS: Mapping[str, Metric] = {
    "codes/nats": _likelihood("nats per code", "lower", format=".3f", order=4),
    "codes/perplexity": _likelihood("perplexity of codes", "lower", order=4),
    "codes/bits_per_dim": _likelihood("bits of codes per pixel value", "lower", format=".3f", order=4),
}
DECLARED = (
    MASKED_PREDICTION_METRICS,
    PSEUDO_PERPLEXITY_METRICS,
    LANGUAGE_MODELLING_METRICS,
    DENOISING_METRICS,
    BOUND_METRICS,
    LATENT_USE_METRICS,
    NLL_METRICS,
    CODES_METRICS,
)
"""All of them, for results that do not carry their descriptions."""
