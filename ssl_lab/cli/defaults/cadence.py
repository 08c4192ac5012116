"""How often a run on a CPU is evaluated: twice, as each evaluation may take as long as several epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator

from omegaconf import DictConfig

from ssl_lab.cli.defaults.facts import Choice, Facts


def of_data(facts: Facts, cfg: DictConfig) -> Iterator[Choice]:
    """Nothing follows from the data alone."""
    yield from ()


def of_length(facts: Facts, cfg: DictConfig, num_steps: int) -> Iterator[Choice]:
    """Half of the epochs."""
    if facts.device == "cpu" and (epochs := cfg.trainer.max_epochs) and epochs > 0:
        yield Choice(f"evaluate_every_n_epochs={math.ceil(epochs / 2)}", f"{epochs} epoch{'s' * (epochs > 1)}")
