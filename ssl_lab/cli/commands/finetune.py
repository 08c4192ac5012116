"""``ssl-lab finetune``: an encoder on a task with labels, over seeds, beside random weights."""

from __future__ import annotations

import math
import os
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ssl_lab import distributed
from ssl_lab.cli import build as config
from ssl_lab.cli.arguments import literal
from ssl_lab.cli.commands.report import make_up_report
from ssl_lab.cli.data_of_run import check_readable, settings_in_run
from ssl_lab.cli.finetuning import Cell, kept_values, train_cell
from ssl_lab.cli.instantiate import class_of
from ssl_lab.cli.learning_rate import find_rate
from ssl_lab.cli.process import print_table
from ssl_lab.cli.resume import refuse_other_files
from ssl_lab.cli.run_name import claim, named_run, removed_if_refused
from ssl_lab.cli.starting import check_adapters, is_started, settle
from ssl_lab.cli.trust.targets import read_settings
from ssl_lab.cli.tuning import AUTO, suit, told
from ssl_lab.data.base import DataModule
from ssl_lab.encoders.lora import merge_adapters
from ssl_lab.engine.checkpoints.checkpoint import checkpoint_identity
from ssl_lab.engine.checkpoints.signals import InterruptedRunError, is_first_rank
from ssl_lab.limited import printable
from ssl_lab.metrics import described, joined
from ssl_lab.outputs import clear
from ssl_lab.runs.directory import read_json, write_json
from ssl_lab.runs.lock import lock_run
from ssl_lab.tasks.classification import Classification
from ssl_lab.tasks.yardstick import score_raw_input
from ssl_lab.types import Encoder, Spec
from ssl_lab.verdict import Verdict, compared, stored

_RUN_DIR = "SSL_LAB_FINETUNE_DIR"  # process that starts further ranks, and its run directory
_DEFAULT_FOLDER = Path("runs/finetune")
PRETRAINED, RANDOM = "pretrained", "random"  # weights that a training begins with


def run(cfg: DictConfig, args: list[str]) -> int:
    """``ssl-lab finetune``: train every cell that is not finished, then print all of them in one table."""
    _check(cfg)
    root = _agreed_run_dir(cfg, args)
    with removed_if_refused(root, parents=2 if root.parent == _DEFAULT_FOLDER else 0):
        return _run(cfg, args, root)


def _run(cfg: DictConfig, args: list[str], root: Path) -> int:
    own_data = cfg.get("data") is None
    run_spec, encoder = (None, None) if cfg.run is None else _take_over_run(cfg)
    datamodule = config.build_data(cfg.data, seed=cfg.seeds[0])
    if own_data:
        _check_labels_of_run(cfg, datamodule)
    spec = _spec(run_spec, datamodule.spec)
    datamodule.columns("test")  # scored at the end: refuse now if it is missing
    datamodule.train_split = "train"
    lock = lock_run(root) if is_first_rank() else None
    try:
        weights = None if encoder is None else encoder.state_dict()
        _choose(cfg, args, root, datamodule, spec, encoder)
        cells = _cells(cfg)
        if lock is not None:
            clear(runs=[root, *(cell.run_dir for cell in cells)], are_held=True)
        results = _earlier_results(cfg, cells)
        if results and distributed.rank() == 0:
            others = ", ".join(f"{result['start']} weights with seed {result['seed']}" for result in results)
            print(f"{root} holds more trainings with these settings, which stay in the table: {others}.")
        begun = {cell.run_dir for cell in cells if (cell.run_dir / "config.yaml").is_file()}
        anew = begun if cfg.ckpt is None else set()
        finished = {cell.run_dir: None if cell.run_dir in anew else _finished(cell) for cell in cells}
        results += [_result(cell, kept) for cell in cells if (kept := finished[cell.run_dir]) is not None]
        yardstick = _yardstick(cfg, root, datamodule) if distributed.rank() == 0 else None
        for cell in cells:
            if finished[cell.run_dir] is not None:
                if distributed.rank() == 0:
                    make_up_report(cell.run_dir)
            else:
                datamodule.seed = cell.seed
                begins_with = weights if cell.start == PRETRAINED else None
                kept = train_cell(
                    cell, args, datamodule, spec, begins_with, resume=cfg.ckpt == "last", alone=len(cells) == 1
                )
                results.append(_result(cell, kept))
            if distributed.rank() == 0:  # each time, so that a kill takes no training that has finished
                table = _table(cfg, datamodule, results, yardstick)
                write_json(root / "finetune.json", table)
    except InterruptedRunError as error:
        stopped = str(error).split(" Continue with")[0]
        raise InterruptedRunError(
            f"{stopped} Continue with the same command and run_dir={root}.", error.signal_name
        ) from error
    finally:
        if lock is not None:
            lock.release()
    if distributed.rank() == 0:
        seeds = ", ".join(map(str, table["seeds"]))
        spread = f"mean ± standard deviation over seeds {seeds}" if len(table["seeds"]) > 1 else f"seed {seeds}"
        print(f"\n{datamodule.title}, test split, {cfg.select} checkpoint, {spread}")
        print_table(table)
        if verdict := stored({**table, "status": "finished"}, None):
            print(printable(str(verdict)))
        print(f"Written to {root / 'finetune.json'}.")
        print(printable(_next_command(cells[0].run_dir, datamodule)))
    return 0


def _yardstick(cfg: DictConfig, root: Path, datamodule: DataModule) -> dict[str, Any] | None:
    """Row of a linear classifier on raw input, for tasks of classes; kept where it was measured before."""
    kind: Any = class_of(cfg.method)
    if not (isinstance(kind, type) and issubclass(kind, Classification)):
        return None
    kept = read_json(root / "finetune.json").get("yardstick")
    return kept if isinstance(kept, dict) and {"name", "metrics"} <= set(kept) else score_raw_input(datamodule)


def _choose(
    cfg: DictConfig, args: list[str], root: Path, datamodule: DataModule, spec: Spec, encoder: Encoder | None
) -> None:
    """Put settings that nobody gave into the configuration, print them, and search for ``optim.lr=auto``."""
    searches = cfg.optim.get("lr") == AUTO
    chosen = suit(cfg, args, datamodule, spec, encoder, published=_is_published(cfg))
    if chosen and is_first_rank():
        print(printable(told(chosen)), flush=True)
    if searches:
        weights = None if encoder is None else encoder.state_dict()
        usual = float(cfg.optim.lr)
        cfg.optim.lr = find_rate(cfg, root, datamodule, spec, weights, usual=usual, anew=cfg.ckpt is None)


def _next_command(run_dir: Path, datamodule: DataModule) -> str:
    """The first training's directory, and how to predict with it where its data say how samples are given."""
    fields = list(datamodule.fields)
    if not fields or not datamodule.given_endings:
        return f"The first training: {run_dir}"
    sample = "text='...'" if fields == ["text"] else "input=FILE"
    return f"Predict with the first training: ssl-lab predict {shlex.quote(f'run={run_dir}')} {sample}"


def _check(cfg: DictConfig) -> None:
    """Refuse what cannot be meant before anything is loaded."""
    if cfg.get("data") is None and cfg.run is None:
        raise ValueError(
            "Cannot fine-tune with run=null and no data=: there is no run to take data from. Give data with labels as "
            "data=NAME, see ssl-lab list data."
        )
    if cfg.select not in ("last", "best"):
        raise ValueError(f"Cannot use select={cfg.select}. Choose last, or best (on the validation split).")
    if cfg.ckpt not in (None, "last"):
        raise ValueError(
            f"Cannot start from ckpt={cfg.ckpt}: fine-tuning resumes its own run_dir=. Choose last or null; "
            "the weights to begin with come from run=."
        )
    if not cfg.seeds or len(set(cfg.seeds)) < len(cfg.seeds):
        raise ValueError(f"Cannot use seeds={list(cfg.seeds)}. Give different numbers, at least one: seeds=[0,1,2].")
    has_encoder = "_target_" in cfg.encoder
    if cfg.run is not None and (has_encoder or any(value is not None for value in cfg.encoder.values())):
        raise ValueError(
            "Both run= and encoder= were given, but the encoder is the run's own. Leave encoder= out, or set run=null to "
            "train an encoder from random weights."
        )
    if cfg.run is None and not has_encoder:
        raise ValueError(
            "run=null trains an encoder from random weights: say which, such as encoder=bert_mini or encoder=convnet."
        )
    if cfg.run is None:
        settle(cfg, Path(), [])
    else:
        check_adapters(cfg, pretrained=True)
    if cfg.run is None and cfg.baseline and not is_started(cfg):
        raise ValueError("baseline=true and run=null are the same training twice. Give run=DIR, or baseline=false.")


def _agreed_run_dir(cfg: DictConfig, args: Sequence[str]) -> Path:
    """The run directory, resolved once: Lightning starts further ranks by the same command, some seconds later.

    A Slurm job that is queued again finds its directory again, as that of ``ssl-lab pretrain`` does.

    Raises:
        ValueError: If the ranks were started from outside and nothing gives them one name.
    """
    parent, _, folder = os.environ.get(_RUN_DIR, "").partition(":")
    if "LOCAL_RANK" in os.environ and parent == str(os.getppid()):
        cfg.run_dir = literal(folder)
    else:
        with named_run(args, sweep=False, named_by=["run_dir="]) as by_time:
            chosen = Path(cfg.run_dir)
            cfg.run_dir = literal(str(claim(chosen) if by_time else chosen))
        os.environ[_RUN_DIR] = f"{os.getpid()}:{cfg.run_dir}"
    return Path(cfg.run_dir)


def _take_over_run(cfg: DictConfig) -> tuple[Spec, Encoder]:
    """Put the run's encoder and tokenizer into the configuration; the facts that it was built from, and the encoder.

    It is the one that the run's evaluation judged: a teacher's or averaged one where the method says so.
    """
    run_dir = Path(cfg.run)
    run_cfg, run_spec, method = config.load_run(run_dir)
    with open_dict(cfg):
        own = config.encoder_in_run(run_cfg.encoder, run_dir)
        cfg.encoder = {**run_cfg.encoder, **dict.fromkeys(config.OF_START), **own}
        if cfg.get("data") is None:
            cfg.data = run_cfg.data
        cfg.data.update(settings_in_run(cfg.data, run_dir, run_spec, None))
    return run_spec, merge_adapters(method.feature_encoder)


def _is_published(cfg: DictConfig) -> bool:
    """Return whether the encoder's weights are those of a published model or a file, at the beginning of its run too."""
    first = cfg if cfg.run is None else read_settings(Path(cfg.run, "config.yaml"), to_build=False)
    return any(first.encoder.get(name) is not None for name in ("pretrained", "weights"))


def _check_labels_of_run(cfg: DictConfig, datamodule: DataModule) -> None:
    """Refuse the run's own data, which were not asked for, if the task finds nothing in them to learn from; else name them.

    Raises:
        ValueError: Naming what they lack.
    """
    task: Any = class_of(cfg.method)
    columns = datamodule.columns("train")
    if missing := [name for name in task.needs_columns if name not in columns]:
        raise ValueError(
            f"Cannot fine-tune on the data of {cfg.run}: {task.__name__} needs data with labels, and {datamodule.title} has "
            f"no {', '.join(missing)}. Give data with labels as data=NAME, see ssl-lab list data."
        )
    if is_first_rank():
        print(printable(f"Data: {datamodule.title}, on which {cfg.run} was trained. data=NAME takes other data."))


def _spec(run_spec: Spec | None, found: Spec) -> Spec:
    """Return the facts that the encoder is built from: those of its run, with the targets of the data.

    Raises:
        ValueError: If the run's encoder does not read the data.
    """
    if run_spec is None:
        return found
    check_readable(run_spec, found)
    return replace(run_spec, targets=found.targets)


def _cells(cfg: DictConfig) -> list[Cell]:
    """All trainings of a command: seeds within starting points."""
    published = cfg.encoder.get("pretrained") if cfg.run is None else None
    if cfg.baseline and published:
        raise ValueError(
            f"baseline=true trains the same network from random weights, but this one is {published}, whose size no setting "
            "says. Train the baseline by a second command with run=null encoder=bert_base, or another of its size."
        )
    source = None if cfg.run is None else checkpoint_identity(config.judged_checkpoint(Path(cfg.run)))
    starts = [PRETRAINED if cfg.run is not None or is_started(cfg) else RANDOM, *([RANDOM] if cfg.baseline else [])]
    return [_cell(cfg, start, seed, source) for start in starts for seed in cfg.seeds]


def _cell(cfg: DictConfig, start: str, seed: int, source: dict[str, Any] | None) -> Cell:
    cell = cfg.copy()
    with open_dict(cell):
        for name in ("seeds", "baseline", "ckpt"):
            del cell[name]
        cell.seed, cell.run_dir = seed, literal(str(Path(cfg.run_dir) / start / f"seed_{seed}"))
        cell.source = source  # a run that is pretrained further keeps its directory
        if start == RANDOM:
            cell.run = cell.source = None
            cell.encoder.weights = cell.encoder.normalise_by = cell.lora.rank = None
            cell.lora.update(alpha=None, dropout=0.0, layers=None)
    return Cell(start, seed, cell)


def _earlier_results(cfg: DictConfig, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Results of finished trainings of earlier commands in the same run directory, with other seeds or starting points.

    Raises:
        ValueError: If one has other settings, so that one table cannot hold both.
    """
    wanted = {(cell.start, cell.seed) for cell in cells}
    source = next((cell.cfg.source for cell in cells if cell.start == PRETRAINED), None)
    found = []
    for start in (PRETRAINED, RANDOM):
        seeds = (
            path.parent.name.removeprefix("seed_") for path in Path(cfg.run_dir, start).glob("seed_*/summary.json")
        )
        for seed in sorted(int(seed) for seed in seeds if seed.isdecimal()):
            cell = _cell(cfg, start, seed, source)
            if (start, seed) not in wanted and read_json(cell.run_dir / "summary.json").get("status") == "finished":
                kept = _finished(cell)
                found += [_result(cell, kept)] if kept is not None else []
    return found


def _result(cell: Cell, kept: dict[str, Any]) -> dict[str, Any]:
    return {"start": cell.start, "seed": cell.seed, "run_dir": str(cell.run_dir), **kept}


def _finished(cell: Cell) -> dict[str, Any] | None:
    """Read the results of a finished training; None if it is not finished.

    Raises:
        ValueError: If the folder holds a training with other settings.
    """
    if not (cell.run_dir / "config.yaml").is_file():
        if is_first_rank():
            refuse_other_files(cell.run_dir)
        return None
    there = OmegaConf.to_container(read_settings(cell.run_dir / "config.yaml", to_build=False), resolve=True)
    wanted = OmegaConf.to_container(cell.cfg, resolve=True)
    assert isinstance(there, dict) and isinstance(wanted, dict)
    if there.get("run") == wanted["run"] and there.get("source") != wanted["source"]:
        before = there.get("source") or {"step": "unknown", "digest": "not recorded"}
        began, now = (f"step {facts['step']} ({facts['digest']})" for facts in (before, wanted["source"]))
        raise ValueError(
            f"{cell.run_dir} started from the weights of {began}, but those of {wanted['run']} are now those of {now}. Their "
            "results do not belong into one table: give another run_dir=."
        )
    differing = [str(name) for name in {**there, **wanted} if name != "run_dir" and there.get(name) != wanted.get(name)]
    if differing:
        raise ValueError(
            f"{cell.run_dir} holds a training with other settings ({', '.join(differing)}), which does not belong into one "
            "table with this one. Give the command that started it, or another run_dir=."
        )
    summary = read_json(cell.run_dir / "summary.json")
    return kept_values(cell.run_dir) if summary.get("status") == "finished" else None


def _table(
    cfg: DictConfig, datamodule: DataModule, results: Sequence[dict[str, Any]], yardstick: dict[str, Any] | None
) -> dict[str, Any]:
    """One row for each start, with mean and sample standard deviation over seeds, and the records behind them.

    A last row holds the linear classifier on raw input, if there is one.
    """
    rows = []
    results = sorted(results, key=lambda result: (result["start"] == RANDOM, result["seed"]))
    all_seeds = sorted({result["seed"] for result in results})
    for start in dict.fromkeys(result["start"] for result in results):
        found = [result["metrics"] for result in results if result["start"] == start]
        seeds = [result["seed"] for result in results if result["start"] == start]
        note = "" if seeds == all_seeds else f" (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})"
        metrics: dict[str, float] = {}
        for name in found[0]:
            if name.startswith("test/"):
                values = [metrics_of_seed[name] for metrics_of_seed in found]
                short = name.removeprefix("test/")
                metrics[short] = statistics.fmean(values)
                if len(values) > 1:
                    metrics[f"{short}_std"] = statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan
        rows.append({"name": f"{start} weights{note}", "metrics": metrics})
    rows += [yardstick] if yardstick is not None else []
    first = read_json(Path(results[0]["run_dir"]) / "evaluation.json")
    descriptions = joined(record.get("described") for record in first.get("measured", []))
    return {
        "verdict": _verdict(rows, first, descriptions).to_json(),
        "split": "test",
        "data": datamodule.title,
        "num_train_samples": len(next(iter(datamodule.columns("train").values()))),
        "run": cfg.run,
        "checkpoint": cfg.select,
        "seeds": all_seeds,
        "signatures": first.get("signatures", {}),
        "described": descriptions,
        "rows": rows,
        "yardstick": yardstick,
        "trainings": results,
    }


def _verdict(rows: Sequence[dict[str, Any]], first: dict[str, Any], descriptions: dict[str, Any]) -> Verdict:
    """What is poor about the first row, beside the others and the most frequent class."""
    own, *others = rows
    record: dict[str, Any] = next(iter(first.get("measured", [])), {})
    scored = str((record.get("data") or {}).get("scored") or "").split(" ")[0]
    findings = compared(
        own["metrics"],
        {row["name"]: ("start" if row["name"].startswith(RANDOM) else "input", row["metrics"]) for row in others},
        described(descriptions),
        num_scored=int(scored) if scored.isdecimal() else None,
        frequency=record.get("frequency"),
    )
    remedy = "Train longer (trainer.max_epochs=), or by the best of several rates (optim.lr=auto)."
    if {finding.kind for finding in findings} == {"start"}:
        remedy = "Pretrain for longer or on data closer to these, or compare rates by optim.lr=auto."
    return Verdict(findings=findings, remedy=remedy if findings else "")
