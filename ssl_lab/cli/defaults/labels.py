"""How features are judged where there are no labels."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from ssl_lab.cli.defaults.facts import Choice, Facts

_PROBES = {"knn", "linear", "few_label"}


def of_data(facts: Facts, cfg: DictConfig) -> Iterator[Choice]:
    """The measures that need no labels, in place of probes."""
    if not facts.labelled and set(cfg.evaluation or {}) >= _PROBES:
        yield Choice("evaluation=label_free", "no labels")


def of_length(facts: Facts, cfg: DictConfig, num_steps: int) -> Iterator[Choice]:
    """Nothing follows from the length."""
    yield from ()
