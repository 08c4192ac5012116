"""Settings of two-view methods and masked autoencoders of images."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from ssl_lab.cli.defaults.facts import Choice, Facts


def of_data(facts: Facts, cfg: DictConfig) -> Iterator[Choice]:
    """Groups, networks, batch and length that suit the data."""
    yield from ()


def of_length(facts: Facts, cfg: DictConfig, num_steps: int) -> Iterator[Choice]:
    """Settings that suit a run of so many steps."""
    yield from ()
