"""``optim.lr=auto``: try a few learning rates on a short training, scored on the validation split."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig, open_dict
from torch import Tensor

from ssl_lab.cli import build as config
from ssl_lab.cli.process import print_table
from ssl_lab.cli.starting import start_of
from ssl_lab.data.base import DataModule, has_split
from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.runs.directory import read_json, write_json
from ssl_lab.types import Spec

FILE = Path("learning_rate.json")
"""File of a fine-tuning with the rates that were tried, and the best."""
_FACTORS = (1 / 3, 1.0, 3.0, 9.0)
"""Rates that are tried, as parts of the usual one. A rate that is too low for a short training is the commoner fault."""
_SHARE, _FEWEST, _MOST = 0.25, 20, 200
"""Length of a trial: share of the whole training, and its limits in steps."""


def rates_around(usual: float) -> list[float]:
    """The rates that are tried, rounded to two digits, the lowest first."""
    return [float(f"{usual * factor:.2g}") for factor in _FACTORS]


def steps_of_trial(whole: int) -> int:
    """Optimizer steps of a trial of a training with ``whole`` steps."""
    return min(whole, max(_FEWEST, min(_MOST, round(_SHARE * whole))))


def best_rate(scores: Mapping[float, float], usual: float) -> float:
    """The rate with the highest score; of equal ones that nearest to the usual rate, then the lower.

    Raises:
        ValueError: If none has a finite score.
    """
    found = {rate: score for rate, score in scores.items() if math.isfinite(score)}
    if not found:
        rates = ", ".join(f"{rate:g}" for rate in scores)
        raise ValueError(f"Cannot choose optim.lr: no trial with {rates} has a finite score. Set a lower optim.lr.")
    return max(found, key=lambda rate: (found[rate], -abs(math.log(rate / usual)), -rate))


def find_rate(
    cfg: DictConfig,
    root: Path,
    datamodule: DataModule,
    spec: Spec,
    weights: Mapping[str, Tensor] | None,
    *,
    usual: float,
    anew: bool,
) -> float:
    """The best of four learning rates, which ``root`` keeps; read from there where it has been found before.

    Each trial trains the first seed from the same weights on the training split, with its own warm-up and decay. The test
    split is not read.

    Args:
        cfg: Settings of the fine-tuning.
        root: Its directory.
        datamodule: The data.
        spec: Facts that the encoder is built from.
        weights: What the encoder begins with; None for what its settings say.
        usual: The rate without a search.
        anew: Whether to search again where a rate has been found.

    Raises:
        ValueError: If there is no validation split, or every trial fails.
    """
    found = read_json(root / FILE)
    if "lr" in found and (not anew or "LOCAL_RANK" in os.environ):  # a further rank follows the first
        return float(found["lr"])
    if not has_split(datamodule, "val"):
        raise ValueError(
            f"Cannot choose optim.lr=auto: {datamodule.title} has no val split, by which rates are compared. Give a number, "
            "or data with a val split (data.val_fraction=0.1)."
        )
    if "LOCAL_RANK" in os.environ:
        raise ValueError(
            "Cannot choose optim.lr=auto in several processes. Run the command once in one process, with the same run_dir=, "
            "or give a number."
        )
    metric = str(cfg.objective).removeprefix("eval/")
    scores = {rate: _score(cfg, rate, datamodule, spec, weights, metric) for rate in rates_around(usual)}
    best = best_rate(scores, usual)
    rows = [{"name": f"optim.lr={rate:g}", "metrics": {metric: score}} for rate, score in scores.items()]
    table = {"split": "val", "data": datamodule.title, "lr": best, "usual": usual, "rows": rows}
    write_json(root / FILE, table)
    print_table(table)
    print(f"Chosen: optim.lr={best:g} (best of {len(rows)} short trainings, scored on val).", flush=True)
    return best


def _score(
    cfg: DictConfig, rate: float, datamodule: DataModule, spec: Spec, weights: Mapping[str, Tensor] | None, metric: str
) -> float:
    """The metric on the validation split after a short training; NaN where the training diverges."""
    trial = cfg.copy()
    seed = int(cfg.seeds[0])
    with open_dict(trial):
        trial.optim.lr, trial.logger, trial.callbacks = rate, {}, {}
        trial.trainer.devices = 1
    with tempfile.TemporaryDirectory() as folder:
        L.seed_everything(seed, verbose=False)
        begin_with = start_of(trial).load if weights is None else lambda encoder: encoder.load_state_dict(weights)
        method = config.build_method(trial, spec, begin_with=begin_with)
        datamodule.seed = seed
        trial.trainer.max_steps = steps_of_trial(_steps(trial, datamodule))
        trial.trainer.max_epochs = -1
        trainer = config.build_trainer(trial, Path(folder), progress_bar=False)
        trainer.fit(method, datamodule=datamodule)
    protocols = config.build_protocols(trial.evaluation, lambda node: config.build_data(node, seed=seed))
    device = trainer.strategy.root_device
    try:
        found = evaluate(method.to(device).capabilities(), protocols, datamodule, device=device, split="val")
    except ValueError:  # scores that are not finite
        return math.nan
    if metric not in found:
        raise ValueError(
            f"Cannot choose optim.lr=auto by objective=eval/{metric}: the task measures {', '.join(sorted(found))}. Set "
            "objective=eval/NAME to one of these."
        )
    return found[metric]


def _steps(cfg: DictConfig, datamodule: DataModule) -> int:
    """Optimizer steps of the whole training on one device."""
    per_epoch: Any = max(1, len(datamodule.train_dataloader()) // cfg.trainer.accumulate_grad_batches)
    epochs, steps = cfg.trainer.max_epochs, cfg.trainer.max_steps
    limits = [steps if steps and steps > 0 else math.inf, epochs * per_epoch if epochs and epochs > 0 else math.inf]
    return int(min(limits)) if math.isfinite(min(limits)) else _MOST * 4
