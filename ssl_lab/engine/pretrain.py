"""Pretrain a method, watch it, and judge its encoder beside baselines."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from ssl_lab import distributed
from ssl_lab.data.base import DataModule, has_split
from ssl_lab.engine.baselines import baseline_rows
from ssl_lab.engine.beginning import BeginAfterFirstStep, Beginning
from ssl_lab.engine.callbacks.agreement import Agreement
from ssl_lab.engine.callbacks.collapse import CollapseAlarm
from ssl_lab.engine.callbacks.evaluation import EvaluateDuringTraining, Evaluation
from ssl_lab.engine.callbacks.exact_position import ExactPosition
from ssl_lab.engine.callbacks.heartbeat import Heartbeat
from ssl_lab.engine.callbacks.non_finite import StopOnNonFiniteLoss
from ssl_lab.engine.callbacks.pictures import Pictures, PicturesDuringTraining
from ssl_lab.engine.callbacks.progress import ExpectedTime, ProgressLines
from ssl_lab.engine.callbacks.throughput import Throughput
from ssl_lab.engine.callbacks.trial import ReportObjective
from ssl_lab.engine.checkpoints.checkpoint import load_weights, sound_checkpoint
from ssl_lab.engine.checkpoints.restoring import ConfiguredOptimizers, check_data_are_same, check_resumable
from ssl_lab.engine.checkpoints.saving import KeepBest, SaveCheckpoint, Saving
from ssl_lab.engine.checkpoints.sharded import gathered
from ssl_lab.engine.checks import check_start
from ssl_lab.engine.endings import tell_start, told_ending
from ssl_lab.engine.feature_map import draw_feature_map
from ssl_lab.engine.judge import evaluate_with_baselines, fingerprints, join_records, write_descriptions
from ssl_lab.engine.logging.dashboards import ForgetLaterSteps, dashboards, guarded
from ssl_lab.engine.logging.loggers import MetricsFile, last_metrics
from ssl_lab.engine.missed_evaluation import log_missed_evaluation, missed_evaluation
from ssl_lab.engine.remedies import tell_verdict
from ssl_lab.engine.steps import optimizer_steps_done
from ssl_lab.evaluation.on_data import data_of, inner, on_split
from ssl_lab.measured import merged
from ssl_lab.methods.base import Method
from ssl_lab.runs.directory import BEST_CHECKPOINT
from ssl_lab.types import Encoder


def pretrain(
    method: Method,
    datamodule: DataModule,
    trainer: L.Trainer,
    *,
    evaluation: Evaluation = Evaluation(),
    pictures: Pictures = Pictures(),
    saving: Saving = Saving(),
    ckpt_path: Path | None = None,
    trial: ReportObjective | None = None,
    beginning: Beginning | None = None,
) -> dict[str, float]:
    """Train ``method`` on raw batches of ``datamodule``, then judge it on the test split beside its baselines.

    The run directory is ``trainer.default_root_dir``: metrics.csv, checkpoints/, pictures/, evaluation.json and
    summary.json are written there.

    Args:
        method: The objective, built around an encoder for ``datamodule.spec``.
        datamodule: The data. Data without a test split are not judged at the end, and those without a val split not during
            training, each with a warning.
        trainer: A Lightning trainer; devices, precision and length of training are its own.
        evaluation: How the result is judged, and how often during training.
        pictures: How often pictures are drawn.
        saving: How often checkpoints are saved, and which one is judged.
        ckpt_path: A checkpoint of the same run to continue; if it is damaged, the one before is used, with a warning.
        trial: Tells a study of many runs how this one does, and may end it.
        beginning: Says when the run may write for the first time; at once without it.

    Returns:
        The last logged metrics, ``eval/...`` on the validation and ``test/...`` on the test split; of a run that was
        resumed those of all its lives.

    Raises:
        NonFiniteLossError: If the loss becomes NaN or infinite.
        InterruptedRunError: If SIGINT, SIGTERM or SIGUSR1 came; the state is saved.
        PrunedRunError: If the study ended the run.
        ValueError: If a protocol needs what the method does not offer, nothing measures ``saving.keep_best``, or the
            checkpoint does not fit the method, its optimizers or the data.
    """
    check_start(method, datamodule, trainer, evaluation, keep_best=saving.keep_best)
    beginning = beginning or Beginning(Path(trainer.default_root_dir))
    initial_encoder = deepcopy(method.encoder)
    checkpoint, position = _resume(
        method, fingerprints(datamodule, evaluation.protocols), trainer, beginning, ckpt_path
    )
    heartbeat = Heartbeat(beginning.run_dir, Throughput(datamodule), beginning)
    guard = StopOnNonFiniteLoss(beginning.run_dir)
    watchers = [heartbeat.throughput, heartbeat, guard, *_watchers(method, datamodule, trainer, evaluation, pictures)]
    keepers = _keepers(beginning, guard, saving, evaluation, trial, checkpoint, last_is_damaged=checkpoint != ckpt_path)
    trainer.callbacks += [*position, *watchers, *keepers]  # type: ignore[attr-defined]
    _connect_loggers(trainer, beginning)
    tell_start(trainer, method, datamodule, beginning, resumed=checkpoint is not None)
    with told_ending(trainer, beginning, heartbeat, evaluation.objective, resumed=checkpoint is not None) as metrics:
        trainer.fit(method, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
        metrics |= _judge(
            method, datamodule, trainer, beginning, initial_encoder, evaluation, pictures, saving.keep_best
        )
        distributed.on_first_rank(
            lambda: tell_verdict(method, datamodule, trainer, beginning.run_dir, evaluation.objective)
        )
    return metrics


def _resume(
    method: Method, data: dict[str, str], trainer: L.Trainer, beginning: Beginning, asked: Path | None
) -> tuple[Path | None, list[Callback]]:
    """Find the sound checkpoint and check that it fits; its path, and the callbacks that restore where the run was."""
    run_dir = beginning.run_dir
    path, contents = (None, None) if asked is None else sound_checkpoint(asked)
    if contents is not None:
        check_resumable(trainer, method, contents, run_dir)
        check_data_are_same(contents, data, beginning, run_dir)
        beginning.step = contents["global_step"]
    return path, [Agreement(run_dir, path, data), ConfiguredOptimizers(contents, run_dir), ExactPosition(data)]


def _watchers(
    method: Method, datamodule: DataModule, trainer: L.Trainer, evaluation: Evaluation, pictures: Pictures
) -> list[Callback]:
    """Build the callbacks that evaluate and draw during training, on the validation split where there is one."""
    watchers: list[Callback] = [ExpectedTime(evaluates=bool(evaluation.protocols))]
    if trainer.progress_bar_callback is None:
        watchers.append(ProgressLines())
    if method.may_collapse or not method.uses_labels:  # a task wants the features of a class to be alike
        watchers.append(CollapseAlarm())
    has_val = has_split(datamodule, "val")
    if has_val or on_split(evaluation.protocols, datamodule, "val"):
        watchers.append(EvaluateDuringTraining(datamodule, evaluation))
    if has_val and pictures.every_n_epochs is not None:
        run_dir = Path(trainer.default_root_dir)
        watchers.append(PicturesDuringTraining(run_dir, datamodule, every_n_epochs=pictures.every_n_epochs))
    return watchers


def _keepers(
    beginning: Beginning,
    guard: StopOnNonFiniteLoss,
    saving: Saving,
    evaluation: Evaluation,
    trial: ReportObjective | None,
    checkpoint: Path | None,
    *,
    last_is_damaged: bool,
) -> list[Callback]:
    """Build the callbacks that save and may stop the run; all read results of evaluations, and saving comes last."""
    run_dir, best = beginning.run_dir, saving.keep_best
    return [
        *([KeepBest(run_dir, best, every_n_epochs=evaluation.cadence_of_metric(best))] if best else []),
        *([ForgetLaterSteps(run_dir, beginning)] if checkpoint is not None else []),
        *([trial] if trial else []),
        BeginAfterFirstStep(beginning, guard),
        SaveCheckpoint(
            run_dir,
            guard,
            every_n_minutes=saving.every_n_minutes,
            every_n_steps=saving.every_n_steps,
            last_is_damaged=last_is_damaged,
        ),
    ]


def _connect_loggers(trainer: L.Trainer, beginning: Beginning) -> None:
    """Log to metrics.csv first, and to the dashboards as soon as the run may write."""
    trainer.loggers = [MetricsFile(beginning.run_dir, beginning), *guarded(trainer.loggers)]
    for board in dashboards(trainer):
        board.beginning = beginning


def _judge(
    method: Method,
    datamodule: DataModule,
    trainer: L.Trainer,
    beginning: Beginning,
    initial_encoder: Encoder,
    evaluation: Evaluation,
    pictures: Pictures,
    keep_best: str | None,
) -> dict[str, float]:
    """Score the trained method on the test split beside its baselines; all metrics of the run."""
    run_dir, device = beginning.run_dir, trainer.strategy.root_device
    protocols = on_split(evaluation.protocols, datamodule, "test")
    method = gathered(trainer, method).to(device)
    missed = missed_evaluation(trainer, method)
    if keep_best:
        load_weights(method, run_dir / BEST_CHECKPOINT)
    if protocols and trainer.is_global_zero:
        names = dict.fromkeys(type(inner(protocol)).__name__ for protocol in protocols)
        print(f"Evaluating on the test split: {', '.join(names)}", flush=True)
    baselined = protocols if evaluation.baselines else []
    baselines = baseline_rows(baselined, datamodule, initial_encoder, device=device)
    records = evaluate_with_baselines(method, protocols, datamodule, baselines, device=device)
    table = merged([], records) if records else {"rows": [{"metrics": {}}]}
    scores = {f"test/{name}": value for name, value in table["rows"][-1]["metrics"].items()}
    beginning.begin()  # where there was no step left
    if missed is not None:
        log_missed_evaluation(trainer, method, missed)
    metrics: dict[str, float] = distributed.on_first_rank(lambda: last_metrics(run_dir))
    metrics |= {name: float(value) for name, value in trainer.callback_metrics.items()}
    metrics |= (missed or {}) | scores
    if records:
        distributed.on_first_rank(lambda: join_records(run_dir / "evaluation.json", records))
    if trainer.is_global_zero:
        write_descriptions(run_dir, protocols, metrics)
        for board in dashboards(trainer):
            board.log_metrics(scores, optimizer_steps_done(trainer) - 1)
        if pictures.every_n_epochs is not None:
            on_own = [protocol for protocol in protocols if data_of(protocol, datamodule) is datamodule]
            draw_feature_map(trainer, run_dir, method, datamodule, on_own)
        for board in dashboards(trainer):
            board.upload(run_dir, method.feature_encoder)
    return metrics
