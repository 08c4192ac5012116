"""Learning rate, batch and length of a fine-tuning, by the encoder and the number of its samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ssl_lab.cli.defaults.facts import Choice

_LARGE, _LARGEST = 512, 1024
"""Widths from which an encoder is tuned as BERT-base and as BERT-large are."""
_SMALLEST = 128
"""Width of BERT-tiny."""
_NUM_STEPS = 600
"""Steps of a training on a CPU, as far as epochs allow."""
_MOST_EPOCHS = 20


@dataclass(frozen=True, kw_only=True)
class TuningFacts:
    """Facts that the learning rate follows from.

    Attributes:
        modality: Of the encoder, such as ``text`` or ``image``.
        title: The encoder's name.
        width: Width of its features.
        published: Whether its weights are those of a published model or a file, and not of an ssl_lab run.
        adapters: Whether low-rank adapters train in place of the encoder's weights.
        frozen: Whether the head alone trains.
    """

    modality: str
    title: str
    width: int
    published: bool
    adapters: bool
    frozen: bool


def rate_of(facts: TuningFacts) -> Iterator[Choice]:
    """The learning rate of encoders of text and images; for others that of ``conf/optim`` stays."""
    rule = _RULES.get(facts.modality)
    if rule is None:
        return
    if facts.frozen:
        yield Choice("optim.lr=0.001", "the head alone trains")
        return
    rate, kind = rule(facts)
    name = f"{facts.title}, {facts.width} wide"
    if facts.adapters:
        # Hu et al. (2021), appendix D: adapters of RoBERTa-base train at 4e-4 to 5e-4, ten times the rate of all weights.
        yield Choice(f"optim.lr={min(10 * rate, 2e-3):g}", f"adapters in a {kind}, {name}")
    else:
        yield Choice(f"optim.lr={rate:g}", f"{kind}, {name}")


def _of_text(facts: TuningFacts) -> tuple[float, str]:
    if facts.width >= _LARGE:
        # Devlin et al. (2018), A.3: 5e-5 to 2e-5, the lower ones for BERT-large.
        return (2e-5 if facts.width >= _LARGEST else 5e-5), "large encoder"
    if facts.published:
        return 1e-4, "small published encoder"  # Turc et al. (2019) tuned theirs with 3e-5 to 3e-4
    # BERT-tiny on 10,000 texts of AG News, 150 steps: random weights 77.5 % at 5e-4, 80.4 % at 1e-3; after 150 s of masked
    # language modelling 70.5 % and 79.9 %. On SST-2, 650 steps, both rates give 81 to 82 %.
    return (1e-3 if facts.width <= _SMALLEST else 5e-4), "small encoder"


def _of_images(facts: TuningFacts) -> tuple[float, str]:
    return (1e-4, "published encoder") if facts.published else (1e-3, "own encoder")


_RULES = {"text": _of_text, "image": _of_images}


def batch_size(num_samples: int) -> int:
    """Samples of a step on a CPU."""
    return max(1, min(num_samples, 16)) if num_samples < 1000 else 32


def num_epochs(num_samples: int, batch: int) -> int:
    """Epochs in which a training on a CPU has about 600 steps, from 1 to 20."""
    per_epoch = max(1, num_samples // batch)
    return min(max(round(_NUM_STEPS / per_epoch), 1), _MOST_EPOCHS)
