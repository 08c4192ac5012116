"""One run of ``ssl-lab pretrain``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from ssl_lab.cli import build as config
from ssl_lab.cli.arguments import literal
from ssl_lab.cli.commands.report import make_up_report
from ssl_lab.cli.defaults.choose import Adapted, adapt, composed, read_choices, save_choices
from ssl_lab.cli.defaults.facts import Choice
from ssl_lab.cli.errors import explain
from ssl_lab.cli.instantiate import instantiate
from ssl_lab.cli.process import prepare_process, print_table
from ssl_lab.cli.resume import begin, chosen_run_dir, task_overrides, without_resumption
from ssl_lab.cli.starting import Kept, first_weights, is_started, settle, start_of
from ssl_lab.cli.sweeps.study import reporter
from ssl_lab.cli.training import build_training
from ssl_lab.encoders.lora import has_adapters, trained_words
from ssl_lab.engine import judge
from ssl_lab.engine.beginning import Beginning
from ssl_lab.engine.callbacks.evaluation import Evaluation
from ssl_lab.engine.callbacks.trial import ReportObjective
from ssl_lab.engine.checkpoints.signals import is_first_rank
from ssl_lab.engine.logging.loggers import last_metrics
from ssl_lab.engine.logging.text_log import text_log
from ssl_lab.engine.pruned import PrunedRunError
from ssl_lab.limited import printable
from ssl_lab.outputs import clear
from ssl_lab.report.page import write_report
from ssl_lab.runs.directory import START_WEIGHTS, read_json, update_summary
from ssl_lab.runs.lock import lock_run
from ssl_lab.tensors import write_tensors
from ssl_lab.verdict import stored


def pretrain_run(cfg: DictConfig) -> float | None:
    """Start, resume or skip one run from its composed settings; returns its objective, if it has one."""
    prepare_process()
    run_dir = chosen_run_dir()

    def compose(choices: Sequence[str]) -> DictConfig:
        found = composed("pretrain", [*choices, *task_overrides()])[0] if choices else cfg.copy()
        found.run_dir = literal(str(run_dir))
        settle(found, run_dir, task_overrides())
        return found

    recorded = _recorded_choices(cfg, run_dir)
    try:
        settings = compose([each.override for each in recorded])
    except HydraException:  # the command changes what they are settings of, which is refused below
        recorded, settings = [], compose([])
    lock = lock_run(run_dir, wait=cfg.trial is not None) if is_first_rank() else None
    try:
        start = begin(settings, run_dir)
        if start.finished:
            if lock is not None:
                clear(runs=[run_dir], are_held=True)
            return _found(settings, run_dir)
        beginning = Beginning(run_dir, waits=start.waits, forced=cfg.force, changes=start.changes)
        if lock is not None:
            beginning.do(lambda: clear(runs=[run_dir], are_held=True))
        try:
            with text_log(run_dir, beginning) if is_first_rank() else nullcontext():
                L.seed_everything(cfg.seed, verbose=False)
                if start.is_new:
                    adapted = adapt(compose, overrides=task_overrides(), choices=HydraConfig.get().runtime.choices)
                else:
                    data = config.build_data(settings.data, seed=cfg.seed)
                    adapted = Adapted(settings, data, choices=tuple(recorded))
                return _train(adapted, run_dir, start.checkpoint, beginning)
        except Exception as error:
            if is_first_rank() and beginning.done and not isinstance(error, PrunedRunError):
                update_summary(run_dir, status="failed", error=explain(error))
            raise
    finally:
        if lock is not None:
            lock.release()


def _recorded_choices(cfg: DictConfig, run_dir: Path) -> list[Choice]:
    """The choices that the run made when it began, or the run whose checkpoint it starts from."""
    if not cfg.adapt_to_data:
        return []
    is_elsewhere = cfg.ckpt not in (None, "last") and not (run_dir / "config.yaml").is_file()
    return read_choices(Path(cfg.ckpt).parents[1] if is_elsewhere and len(Path(cfg.ckpt).parents) > 1 else run_dir)


def _found(cfg: DictConfig, run_dir: Path) -> float | None:
    """The objective of a run that has ended before; writes its report if the process died before it could."""
    summary = read_json(run_dir / "summary.json")
    if is_first_rank():
        make_up_report(run_dir)
    if summary["status"] == PrunedRunError.status:
        raise PrunedRunError(summary.get("error"))
    metrics = last_metrics(run_dir) | (summary.get("metrics") or {})
    value: float | None = metrics.get(cfg.objective)
    found = f" with {cfg.objective} {value:.4f}" if value is not None else ""
    if is_first_rank():
        print(f"{run_dir} has finished before{found} and is not run again. For a new run, give another run_dir.")
    return value


def _train(adapted: Adapted, run_dir: Path, checkpoint: Path | None, beginning: Beginning) -> float | None:
    hydra_cfg = HydraConfig.get()
    cfg, datamodule = adapted.cfg, adapted.datamodule
    begins = start_of(cfg, run_dir, resumed=checkpoint is not None)
    spec = begins.spec(datamodule.spec)
    kept = run_dir if isinstance(begins, Kept) else None
    method = config.build_method(cfg, spec, begin_with=begins.load, run_dir=kept)
    _label_for_loggers(cfg)
    launcher, sweeper = hydra_cfg.launcher._target_, hydra_cfg.sweeper._target_
    training = build_training(
        cfg,
        run_dir,
        method,
        datamodule,
        mode=hydra_cfg.mode,
        objective=cfg.objective,
        launcher=launcher,
        sweeper=sweeper,
    )
    trainer = training.trainer
    if hydra_cfg.mode == RunMode.MULTIRUN and cfg.objective:
        judge.check_is_measurable(cfg.objective, training.evaluation.protocols, datamodule)
    if checkpoint is not None:
        datamodule.check_artifacts(run_dir)
    if trainer.is_global_zero:
        overrides, experiment = task_overrides(), hydra_cfg.runtime.choices.get("experiment")

        encoder = method.encoder
        own_spec = None if encoder.spec == datamodule.spec else encoder.spec
        first = first_weights(encoder) if is_started(cfg) and kept is None else None

        def write_settings() -> None:
            if adapted.choices:  # before config.yaml, which says to other ranks that the run has begun
                save_choices(adapted.choices, run_dir)
            config.save_config(cfg, without_resumption(overrides), datamodule, run_dir, encoder=encoder, spec=own_spec)
            if first is not None:
                write_tensors(run_dir / START_WEIGHTS, first)
            training.log_settings(cfg)
            update_summary(run_dir, experiment=experiment, seed=cfg.seed)

        beginning.do(write_settings)
        if line := adapted.line():
            print(line)
        size = sum(p.numel() for p in method.encoder.parameters())
        print(
            f"{type(method).__name__} on {datamodule.title} {datamodule.spec.shape}: "
            f"{method.encoder.title}, {size:,} parameters, {trainer.accelerator.__class__.__name__} x "
            f"{trainer.world_size}. Run directory: {run_dir}"
            + (f", resumed from {checkpoint.name}" if checkpoint is not None else "")
        )
        if has_adapters(method.encoder):
            print(trained_words(method, method.encoder))
        print("".join(f"{name} {value:.4f}\n" for name, value in datamodule.metrics().items()), end="")
    try:
        metrics = training.run(checkpoint, trial=_trial(cfg, training.evaluation), beginning=beginning)
    except BaseException as error:
        if (
            trainer.is_global_zero and beginning.done and getattr(error, "status", None) != "preempted"
        ):  # then there may be seconds left
            with suppress(Exception):  # the error itself is what the user needs
                write_report(run_dir)
        raise
    value = metrics.get(cfg.objective) if cfg.objective else None
    if trainer.is_global_zero:
        _conclude(run_dir)
    if cfg.objective and value is None and hydra_cfg.mode == RunMode.MULTIRUN:
        raise ValueError(
            f"The objective {cfg.objective!r} was not measured. Choose from: {', '.join(sorted(metrics))}."
        )
    return value


def _label_for_loggers(cfg: DictConfig) -> None:
    """The sweep as the group and the chosen configuration groups as tags of loggers for which the user sets neither."""
    hydra_cfg = HydraConfig.get()
    choices = hydra_cfg.runtime.choices
    given = [override.split("=")[0] for override in hydra_cfg.overrides.task]
    names = dict.fromkeys(["experiment", "method", "data", "encoder", *(key for key in given if key in choices)])
    tags = list(dict.fromkeys(choices[name] for name in names if isinstance(choices.get(name), str)))
    for node in (cfg.logger or {}).values():
        if not isinstance(node, DictConfig):  # something that is refused later
            continue
        if "group" in node and node.group is None and hydra_cfg.mode == RunMode.MULTIRUN:
            node.group = Path(hydra_cfg.sweep.dir).name
        if "tags" in node and node.tags is None:
            node.tags = tags


def _trial(cfg: DictConfig, evaluation: Evaluation) -> ReportObjective | None:
    """Return the callback that reports to the study whose trial the run is, if it is one."""
    if cfg.trial is None:
        return None
    study = HydraConfig.get().sweeper
    report = reporter(study.storage, study.study_name, instantiate(study.pruner), cfg.trial)
    return ReportObjective(cfg.objective, report, every_n_epochs=evaluation.cadence_of_metric(cfg.objective))


def _conclude(run_dir: Path) -> None:
    evaluation, summary = read_json(run_dir / "evaluation.json"), read_json(run_dir / "summary.json")
    if evaluation:
        print_table(evaluation)
    if verdict := stored(summary, evaluation):
        print(printable(str(verdict)))
    seconds = summary["training_time_sec"]
    print(f"Trained in {seconds:.0f} s. Report: {write_report(run_dir)}")
