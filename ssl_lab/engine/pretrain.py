"""Pretrain a method, watch it, and judge what it has learned beside its baselines."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from copy import deepcopy
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from ssl_lab import distributed
from ssl_lab.data.base import DataModule, has_split
from ssl_lab.engine.beginning import BeginAfterFirstStep, Beginning
from ssl_lab.engine.callbacks.agreement import Agreement
from ssl_lab.engine.callbacks.collapse import CollapseAlarm
from ssl_lab.engine.callbacks.exact_position import ExactPosition
from ssl_lab.engine.callbacks.heartbeat import Heartbeat
from ssl_lab.engine.callbacks.non_finite import StopOnNonFiniteLoss
from ssl_lab.engine.callbacks.pictures import PicturesDuringTraining, show_image
from ssl_lab.engine.callbacks.progress import ProgressLines
from ssl_lab.engine.callbacks.throughput import Throughput
from ssl_lab.engine.callbacks.trial import PrunedRunError, ReportObjective
from ssl_lab.engine.checkpoints.checkpoint import load_weights, sound_checkpoint
from ssl_lab.engine.checkpoints.restoring import ConfiguredOptimizers, check_data_are_same, check_resumable
from ssl_lab.engine.checkpoints.saving import KeepBest, SaveCheckpoint
from ssl_lab.engine.checkpoints.sharded import gathered
from ssl_lab.engine.checkpoints.signals import InterruptedRunError
from ssl_lab.engine.judge import (
    baseline_rows,
    check_is_measured,
    check_needs,
    evaluate_with_baselines,
    join_records,
    write_descriptions,
)
from ssl_lab.engine.logging.dashboards import ForgetLaterSteps, dashboards, guarded
from ssl_lab.engine.logging.loggers import MetricsFile, last_metrics
from ssl_lab.engine.logging.text_log import LOG
from ssl_lab.engine.steps import evaluation_due, optimizer_steps_done, steps_done
from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.evaluation.protocol import Protocol, features_of
from ssl_lab.measured import merged
from ssl_lab.methods.base import Method
from ssl_lab.pictures.features import projection, thumbnails
from ssl_lab.runs.directory import BEST_CHECKPOINT, environment, read_json, update_summary
from ssl_lab.tasks.base import FineTuning

_MAX_EMBEDDED = 2000  # features that TensorBoard's projector gets


class EvaluateDuringTraining(Callback):
    """Runs protocols on the validation split every few epochs and logs ``eval/<protocol>/<metric>``."""

    def __init__(
        self,
        datamodule: DataModule,
        protocols: Sequence[Protocol],
        *,
        every_n_epochs: int,
        max_train_samples: int | None = None,
    ) -> None:
        self.datamodule = datamodule
        self.protocols = protocols
        self.every_n_epochs = every_n_epochs
        self.max_train_samples = max_train_samples
        self.step = -1  # steps done at the last evaluation

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate if it is time; the loss and the random streams of training stay untouched."""
        assert isinstance(pl_module, Method)
        if evaluation_due(trainer, self.every_n_epochs):
            metrics = self.evaluate(gathered(trainer, pl_module))
            pl_module.log_dict(metrics)
            self.step = steps_done(trainer)
            if trainer.is_global_zero:
                write_descriptions(Path(trainer.default_root_dir), self.protocols, metrics)
            found = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            LOG.info("step %d: %s", optimizer_steps_done(trainer), found or "not evaluated")

    def evaluate(self, method: Method) -> dict[str, float]:
        """Metrics of the validation split by name, ``eval/<protocol>/<metric>``."""
        metrics = evaluate(
            method.capabilities(),
            self.protocols,
            self.datamodule,
            device=method.device,
            split="val",
            max_train_samples=self.max_train_samples,
        )
        return {f"eval/{name}": value for name, value in metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        """When the last evaluation was."""
        return {"step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from it."""
        self.step = state_dict["step"]


def check_batch(method: Method, num_samples: int) -> None:
    """Refuse a step of so many samples on all ranks if the objective or its batch statistics say nothing on them.

    Raises:
        ValueError: Naming what ties the samples of a batch together.
    """
    reason = method.coupled_by if num_samples < method.min_samples else ""
    if num_samples < 2 and any(isinstance(module, nn.BatchNorm1d) for module in method.modules()):
        reason = reason or "batch normalisation takes its statistics from the other samples"
    if reason:
        samples = "1 sample" if num_samples == 1 else f"{num_samples} samples"
        raise ValueError(
            f"Cannot train {type(method).__name__} on {samples} a step: {reason}. Set data.batch_size x devices to "
            f"{max(2, method.min_samples)} or more."
        )


def pretrain(
    method: Method,
    datamodule: DataModule,
    trainer: L.Trainer,
    protocols: Sequence[Protocol] | None = None,
    ckpt_path: Path | None = None,
    *,
    evaluate_every_n_epochs: int = 10,
    evaluate_max_train_samples: int | None = 10_000,
    pictures_every_n_epochs: int | None = 10,
    save_every_n_minutes: float = 10.0,
    save_every_n_steps: int | None = None,
    keep_best: str | None = None,
    trial: ReportObjective | None = None,
    objective: str | None = None,
    beginning: Beginning | None = None,
) -> dict[str, float]:
    """Train ``method`` on raw batches of ``datamodule``, then judge it on the test split beside its baselines.

    The run directory is ``trainer.default_root_dir``: metrics.csv, checkpoints/, pictures/, evaluation.json and
    summary.json are written there.

    Args:
        method: The objective, built around an encoder for ``datamodule.spec``.
        datamodule: The data.
        trainer: A Lightning trainer; devices, precision and length of training are its own.
        protocols: How the result is judged; None or empty for no evaluation. Data without a test split are not judged at
            the end, and those without a val split not during training, each with a warning.
        ckpt_path: A checkpoint of the same run to continue; if it is damaged, the one before is used, with a warning.
        evaluate_every_n_epochs: Epochs between evaluations on the validation split.
        evaluate_max_train_samples: Of a larger train split, how many samples probes are fitted to then; a fixed random
            part, None for all. The evaluation on the test split at the end always takes all.
        pictures_every_n_epochs: Epochs between pictures of it; None for no pictures.
        save_every_n_minutes: Time between checkpoints.
        save_every_n_steps: Batches between checkpoints, if not only time counts.
        keep_best: Metric of the validation split, ``eval/...``, whose highest value chooses the checkpoint that is judged
            on test; None for the last one.
        trial: Tells a study of many runs how this one does, and may end it.
        objective: Metric that the summary names as the run's objective.
        beginning: Says when the run may write for the first time; at once without it.

    Returns:
        The last logged metrics, ``eval/...`` on the validation and ``test/...`` on the test split; of a run that was
        resumed those of all its lives.

    Raises:
        NonFiniteLossError: If the loss becomes NaN or infinite.
        InterruptedRunError: If SIGINT, SIGTERM or SIGUSR1 came; the state is saved.
        PrunedRunError: If the study ended the run.
        ValueError: If a protocol needs what the method does not offer, nothing measures ``keep_best``, or the checkpoint
            does not fit the method, its optimizers or the data.
    """
    protocols = list(protocols or [])
    check_needs(method, protocols, datamodule)
    check_batch(method, datamodule.batch_size * trainer.world_size)
    if keep_best:
        check_is_measured(keep_best, protocols, datamodule)
    run_dir = Path(trainer.default_root_dir)
    judged = protocols if has_split(datamodule, "test") else []
    if protocols and not judged and trainer.is_global_zero:
        warnings.warn(
            f"{datamodule.title} has no test split: the run is not judged after training. Give data with "
            "one, such as by data.test_fraction=0.1.",
            stacklevel=1,
        )
    if protocols and not has_split(datamodule, "val") and trainer.is_global_zero:
        unmeasured = f", and the objective {objective} is not measured" if (objective or "").startswith("eval/") else ""
        warnings.warn(
            f"{datamodule.title} has no val split: nothing is evaluated or drawn during training{unmeasured}. Set "
            "data.val_fraction=0.1 if you want that.",
            stacklevel=1,
        )
    initial_encoder = deepcopy(method.encoder)
    beginning = beginning or Beginning(run_dir)
    throughput = Throughput(datamodule)
    heartbeat = Heartbeat(run_dir, throughput, beginning)
    guard = StopOnNonFiniteLoss(run_dir)
    data = datamodule.fingerprint
    asked_path, contents = ckpt_path, None
    if asked_path is not None:
        ckpt_path, contents = sound_checkpoint(asked_path)
        check_resumable(trainer, method, contents, run_dir)
        check_data_are_same(contents, data, beginning, run_dir)
        beginning.step = contents["global_step"]
    trainer.callbacks += [  # type: ignore[attr-defined]
        Agreement(run_dir, ckpt_path, data),
        ConfiguredOptimizers(contents, run_dir),
        ExactPosition(data),
        throughput,
        heartbeat,
        guard,
        *([] if trainer.progress_bar_callback else [ProgressLines()]),
        *([] if isinstance(method, FineTuning) else [CollapseAlarm()]),  # features of a class should be alike
        *_watchers(
            run_dir, datamodule, protocols, evaluate_every_n_epochs, evaluate_max_train_samples, pictures_every_n_epochs
        ),
        *([KeepBest(run_dir, keep_best)] if keep_best else []),
        *([ForgetLaterSteps(run_dir, beginning)] if contents is not None else []),
        *([trial] if trial else []),
        BeginAfterFirstStep(beginning, guard),
        SaveCheckpoint(
            run_dir,
            guard,
            every_n_minutes=save_every_n_minutes,
            every_n_steps=save_every_n_steps,
            last_is_damaged=ckpt_path != asked_path,
        ),
    ]
    trainer.loggers = [MetricsFile(run_dir, beginning), *guarded(trainer.loggers)]
    for board in dashboards(trainer):
        board.beginning = beginning
    if trainer.is_global_zero:
        facts = _description(method, datamodule) | environment()
        beginning.do(partial(_start_summary, run_dir, facts, resumed=contents is not None))
    del contents
    try:
        trainer.fit(method, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
        device = trainer.strategy.root_device
        method = gathered(trainer, method).to(device)
        made_up = _made_up_evaluation(trainer, method)
        if keep_best:
            load_weights(method, run_dir / BEST_CHECKPOINT)
        baselines = baseline_rows(judged, datamodule, initial_encoder, device=device)
        records = evaluate_with_baselines(method, judged, datamodule, baselines, device=device)
        table = merged([], records) if records else {"rows": [{"metrics": {}}]}
        scores = {f"test/{name}": value for name, value in table["rows"][-1]["metrics"].items()}
        beginning.begin()  # where there was no step left
        if made_up is not None:
            _log_made_up(trainer, method, made_up)
        metrics = distributed.on_first_rank(lambda: last_metrics(run_dir))
        metrics |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics |= (made_up or {}) | scores
        if records:
            distributed.on_first_rank(lambda: join_records(run_dir / "evaluation.json", records))
        if trainer.is_global_zero:
            write_descriptions(run_dir, judged, metrics)
            for board in dashboards(trainer):
                board.log_metrics(scores, optimizer_steps_done(trainer) - 1)
            if pictures_every_n_epochs:
                try:
                    _draw_projection(trainer, run_dir, method, datamodule, judged)
                except Exception as error:  # costs the picture, not the run
                    reason = f"{type(error).__name__}: {error}"
                    warnings.warn(f"The map of the features could not be drawn ({reason}).", stacklevel=1)
            for board in dashboards(trainer):
                board.upload(run_dir, method.encoder)
    except BaseException as error:
        if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
            error = KeyboardInterrupt()  # Lightning turns a second Ctrl-C into an exit
        stopped = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        status = error.status if isinstance(error, InterruptedRunError | PrunedRunError) else stopped
        told = str(error) or type(error).__name__
        try:  # first: a job that is preempted may have no time to wait for uploads
            if trainer.is_global_zero and beginning.done:
                step = optimizer_steps_done(trainer)  # none where the checkpoint was not restored yet
                update_summary(run_dir, status=status, error=told, **({"step": step} if step or not asked_path else {}))
        except (OSError, ValueError) as problem:  # never in place of the error, which may ask for another life
            warnings.warn(f"{run_dir / 'summary.json'} cannot be written ({problem}).", stacklevel=1)
        finally:
            for board in dashboards(trainer):
                board.finish(failed=True)
        raise error
    finally:
        heartbeat.stop()
    facts = {
        "status": "finished",
        "step": optimizer_steps_done(trainer),
        "epoch": trainer.current_epoch,
        "metrics": metrics,
        "objective": {"name": objective, "value": metrics.get(objective)} if objective else None,
        "wall_time_sec": throughput.wall_time_sec,
        "training_time_sec": throughput.training_time_sec,
        "evaluation_time_sec": throughput.evaluation_time_sec,
        "samples_per_sec": throughput.num_samples / max(throughput.training_time_sec, 1e-9),
    }
    distributed.on_first_rank(lambda: update_summary(run_dir, **facts))
    for board in dashboards(trainer):
        board.finish(failed=False)
    return metrics


def _watchers(
    run_dir: Path,
    datamodule: DataModule,
    protocols: Sequence[Protocol],
    evaluate_every_n_epochs: int,
    evaluate_max_train_samples: int | None,
    pictures_every_n_epochs: int | None,
) -> list[Callback]:
    """What looks at the validation split during training; nothing where there is none."""
    if not has_split(datamodule, "val"):
        return []
    watchers: list[Callback] = [
        EvaluateDuringTraining(
            datamodule,
            protocols,
            every_n_epochs=evaluate_every_n_epochs,
            max_train_samples=evaluate_max_train_samples,
        )
    ]
    if pictures_every_n_epochs:
        watchers.append(PicturesDuringTraining(run_dir, datamodule, every_n_epochs=pictures_every_n_epochs))
    return watchers


def _made_up_evaluation(trainer: L.Trainer, method: Method) -> dict[str, float] | None:
    """The last evaluation of a run that was stopped between its last step and its end; None if it was not."""
    evaluations = [c for c in trainer.callbacks if isinstance(c, EvaluateDuringTraining)]  # type: ignore[attr-defined]
    if not evaluations or trainer.callback_metrics or evaluations[0].step == steps_done(trainer):
        return None
    metrics = evaluations[0].evaluate(method)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, KeepBest):
            callback.look(trainer, metrics)
        if isinstance(callback, ReportObjective) and callback.objective in metrics:
            callback.tell(trainer, trainer.current_epoch, metrics[callback.objective])
    return metrics


def _log_made_up(trainer: L.Trainer, method: Method, metrics: dict[str, float]) -> None:
    """Leave what was made up where the evaluation would have left it, with its pictures."""
    if metrics:
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=optimizer_steps_done(trainer) - 1)
        trainer.loggers[0].finalize("success")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, PicturesDuringTraining) and trainer.is_global_zero:
            callback.draw(trainer, method)


def _start_summary(run_dir: Path, facts: dict[str, Any], *, resumed: bool) -> None:
    """Facts of the run, which began with its first life."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    started = read_json(run_dir / "summary.json").get("started") if resumed else None
    update_summary(run_dir, **facts, started=started or now, status="running", error=None)


def _description(method: Method, datamodule: DataModule) -> dict[str, Any]:
    columns = datamodule.columns(datamodule.train_split)
    return {
        "method": type(method).__name__,
        "data": datamodule.title,
        "encoder": type(method.encoder).__name__,
        "num_parameters": sum(p.numel() for p in method.encoder.parameters()),
        "num_train_samples": len(next(iter(columns.values()))),
        **datamodule.metrics(),
    }


def _draw_projection(
    trainer: L.Trainer, run_dir: Path, method: Method, datamodule: DataModule, protocols: Sequence[Protocol]
) -> None:
    """A map of the features of the test split, and the features themselves for dashboards that draw their own."""
    if distributed.world_size() > 1 or not any(protocol.needs == "features" for protocol in protocols):
        return
    x, y = features_of(method.features, datamodule, "test", device=method.device)
    names = datamodule.spec.class_names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn announces changed defaults of t-SNE
        pixels = projection(x, y, names)
    if pixels is not None:
        show_image(trainer, run_dir, "projection", pixels)
        x, y = x[:_MAX_EMBEDDED], y[:_MAX_EMBEDDED]
        image = datamodule.columns("test").get("image")
        small = thumbnails(torch.as_tensor(image[np.arange(len(x))])) if image is not None else None
        labels = ["no label" if k < 0 else names[k] if k < len(names) else str(k) for k in y.tolist()]
        for board in dashboards(trainer):
            board.embedding(x.cpu(), labels, small, optimizer_steps_done(trainer) - 1)
