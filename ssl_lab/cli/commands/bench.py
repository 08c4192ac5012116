"""``ssl-lab bench``: how fast an experiment trains."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from omegaconf import DictConfig

from ssl_lab.cli import build as config
from ssl_lab.cli.arguments import with_raw_paths
from ssl_lab.cli.defaults.choose import adapt, composed
from ssl_lab.cli.defaults.method import with_method
from ssl_lab.cli.experiments import keep_composable
from ssl_lab.cli.starting import settle, start_of
from ssl_lab.data.base import DataModule
from ssl_lab.engine.bench import Speed
from ssl_lab.engine.bench import bench as run_bench
from ssl_lab.engine.callbacks.progress import ProgressLines
from ssl_lab.engine.checkpoints.signals import is_first_rank
from ssl_lab.limited import printable
from ssl_lab.outputs import check_output, marked
from ssl_lab.runs.directory import write_json
from ssl_lab.runs.environment import environment


def run(cfg: DictConfig, args: list[str]) -> int:
    """``ssl-lab bench``: how fast an experiment trains, and where its steps spend their time."""
    if cfg.num_steps < 1 or cfg.warmup_steps < 0:
        raise ValueError(
            f"Cannot time num_steps={cfg.num_steps} after warmup_steps={cfg.warmup_steps}. Give num_steps of at least 1 and "
            "warmup_steps of at least 0."
        )
    if cfg.max_minutes is not None and cfg.max_minutes <= 0:
        raise ValueError(
            f"Cannot time steps within max_minutes={cfg.max_minutes}. Give minutes above 0, or null for no bound."
        )
    if cfg.out:
        check_output(Path(cfg.out), ours=marked(b'"samples_per_sec"', begin=b'{\n  "experiment": ['))
    given = keep_composable("bench", with_raw_paths(with_method(args)))

    def compose(choices: Sequence[str]) -> DictConfig:
        found = composed("bench", [*choices, *given])[0] if choices else cfg.copy()
        settle(found, Path(), args)
        return found

    L.seed_everything(cfg.seed, verbose=False)
    _tell("Preparing data and encoder.")
    adapted = adapt(compose, overrides=given, choices=composed("bench", given)[1])
    settings, datamodule = adapted.cfg, adapted.datamodule
    if line := adapted.line():
        print(line)
    start = start_of(settings)
    method = config.build_method(settings, start.spec(datamodule.spec), begin_with=start.load)
    settings.trainer.max_epochs = -1
    # An optimizer's step counts: a method that steps two optimizers by hand needs twice as many.
    settings.trainer.max_steps = (1 if method.automatic_optimization else 2) * (cfg.warmup_steps + 2 * cfg.num_steps)
    settings.logger = None
    with tempfile.TemporaryDirectory() as folder:
        settings.run_dir = folder
        trainer = config.build_trainer(settings, Path(folder), progress_bar=False)
        trainer.callbacks.append(ProgressLines())  # type: ignore[attr-defined]
        _tell(
            f"{type(method).__name__} on {datamodule.title} {datamodule.spec.shape}, batch {datamodule.batch_size}: "
            f"{cfg.warmup_steps} steps to warm up, {cfg.num_steps} as they are, {cfg.num_steps} part by part."
        )
        speed = run_bench(
            method,
            datamodule,
            trainer,
            warmup_steps=cfg.warmup_steps,
            num_steps=cfg.num_steps,
            max_sec=None if cfg.max_minutes is None else 60 * cfg.max_minutes,
            tell=_tell,
        )
    if cfg.out:
        write_json(Path(cfg.out), {"experiment": args, **dataclasses.asdict(speed), **environment()})
    if trainer.is_global_zero:
        print(_speed_table(type(method).__name__, datamodule, speed))
    return 0


def _tell(words: str) -> None:
    """Print what is done next, once for all ranks, so that a log file holds it at once."""
    if is_first_rank():
        print(printable(words), flush=True)


def _speed_table(method: str, datamodule: DataModule, speed: Speed) -> str:
    tokens = "" if speed.tokens_per_sec is None else f", {speed.tokens_per_sec:,.0f} tokens/s"
    shares = "   ".join(f"{name.replace('_', ' + ')} {share:.1%}" for name, share in speed.shares.items())
    return (
        f"{method} on {datamodule.title} {datamodule.spec.shape}, batch {datamodule.batch_size}, {speed.precision}, "
        f"{speed.device}\n"
        f"  throughput          {speed.samples_per_sec:,.0f} samples/s{tokens}\n"
        f"  step                {speed.step_ms:.1f} ms:   {shares}\n"
        f"  encoder alone       {speed.bare_ms:.1f} ms forward + backward on random data; the step takes "
        f"{speed.ratio:.2f} times that\n"
        f"  utilisation (MFU)   {speed.mfu:.1%} of {speed.peak_tflops:.3g} TFLOP/s with {speed.step_tflop:.3g} TFLOP a step"
    )
