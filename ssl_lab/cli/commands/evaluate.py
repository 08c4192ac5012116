"""``ssl-lab evaluate``: judge runs beside their baselines."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig, ListConfig, OmegaConf

from ssl_lab.cli import build as config
from ssl_lab.cli.data_of_run import check_same_classes, check_same_data, data_for_run, data_in_run
from ssl_lab.cli.process import print_table
from ssl_lab.cli.starting import initial_encoder
from ssl_lab.data.base import DataModule, has_split
from ssl_lab.data.store import fingerprint
from ssl_lab.devices import find_device
from ssl_lab.engine import judge
from ssl_lab.engine.baselines import Baseline, baseline_rows, check_baselines
from ssl_lab.evaluation.on_data import by_data, data_of, inner
from ssl_lab.evaluation.protocol import Protocol
from ssl_lab.limited import printable
from ssl_lab.measured import merged
from ssl_lab.methods.base import Method
from ssl_lab.outputs import check_output, clear
from ssl_lab.report.page import write_report
from ssl_lab.runs.compare import run_labels, side_by_side
from ssl_lab.runs.directory import read_json, write_json
from ssl_lab.runs.read import read_run
from ssl_lab.runs.ways import LOADING
from ssl_lab.types import Spec

EVALUATION = "evaluation.json"
_READ_ONLY = "Give out=FILE.json or out=FOLDER."


def run(cfg: DictConfig, args: list[str]) -> int:
    """``ssl-lab evaluate``: judge a run again, or several side by side, on their own or on other data."""
    table, written = judged(cfg)
    print_table(table)
    print(printable("\n".join(written)))
    return 0


def judged(cfg: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """Evaluate, write the files, and return the table and a line for each file."""
    run_dirs = [Path(run_dir) for run_dir in (cfg.run if isinstance(cfg.run, ListConfig) else [cfg.run])]
    runs = [config.load_run(run_dir) for run_dir in run_dirs]
    if cfg.get("data") is None:
        check_same_data(run_dirs, [run_cfg for run_cfg, _, _ in runs])
    own = cfg.get("data") is None and cfg.split == "test"
    device = find_device()
    prepared = []
    for run_dir, (run_cfg, spec, method) in zip(run_dirs, runs, strict=True):
        run_settings = OmegaConf.to_container(run_cfg.evaluation, resolve=True) if run_cfg.evaluation else {}
        datamodule = data_for_run(run_cfg, run_dir, spec, cfg.get("data"))
        protocols = _protocols(cfg, run_cfg, run_dir, spec, datamodule)
        judge.check_protocols(method, protocols, datamodule)
        if not cfg.baselines:
            check_baselines(protocols, datamodule, cfg.split)
        check_same_classes(method, protocols, spec, datamodule)
        name = EVALUATION if own else _file_name(datamodule, cfg, run_cfg)
        path = _path(cfg.get("out"), run_dir, name, several=len(runs) > 1)
        check_output(path, instead=_READ_ONLY if cfg.get("out") is None else "")
        _refuse_other_file(path, run_dir, named=cfg.get("out") is not None)
        prepared.append((run_dir, path, datamodule, protocols, run_settings))
    clear(*(path for _, path, *_ in prepared), runs=run_dirs)
    baselines: dict[str, list[Baseline]] = {}
    measured, written = [], []
    for (run_dir, path, datamodule, protocols, run_settings), (run_cfg, spec, method) in zip(
        prepared, runs, strict=True
    ):
        key = f"{spec!r} {datamodule.fingerprint} {run_cfg.encoder} {run_cfg.evaluation}"  # share a random encoder
        if key not in baselines:
            L.seed_everything(runs[0][0].seed, verbose=False)
            before = initial_encoder(run_cfg, spec, run_dir) if cfg.baselines else method.feature_encoder
            beside = protocols if cfg.baselines else []
            baselines[key] = baseline_rows(beside, datamodule, before, device=device, split=cfg.split)
        records = judge.evaluate_with_baselines(
            method.to(device), protocols, datamodule, baselines[key], device=device, split=cfg.split
        )
        method.cpu()
        earlier = _earlier(run_dir, path, method, run_settings, own=own)
        write_json(path, {"run": str(run_dir), **merged(earlier, records)})
        report = f" Report: {write_report(run_dir)}" if path == run_dir / EVALUATION else ""
        written.append(f"Written to {path}.{report}")
        measured.append(records)
    labels = run_labels([read_run(run_dir) for run_dir in run_dirs])
    return side_by_side(measured, labels) if len(measured) > 1 else merged([], measured[0]), written


def _protocols(
    cfg: DictConfig, run_cfg: DictConfig, run_dir: Path, spec: Spec, datamodule: DataModule
) -> list[Protocol]:
    """The chosen ones, or else the run's own; at least one of them measures something.

    Those whose own data lack the split are left out with a warning, as at the end of training.
    """
    if cfg.get("evaluation") is not None:
        run_cfg.evaluation = cfg.evaluation  # within the run's configuration, to which it may refer
    if cfg.metric.encoder is not None:
        config.judge_samples_by(cfg.metric.encoder, run_cfg.evaluation)
    protocols = config.build_protocols(run_cfg.evaluation, partial(data_in_run, run_cfg, run_dir, spec))
    for data, places in by_data(protocols, datamodule):
        if data is not datamodule and not has_split(data, cfg.split):
            names = ", ".join(type(inner(protocols[k])).__name__ for k in places)
            warnings.warn(f"{data.title} has no {cfg.split} split: {names} on it is left out.", stacklevel=1)
            protocols = [p for p in protocols if data_of(p, datamodule) is not data]
    if not protocols:
        whose = "evaluation=none" if cfg.get("evaluation") is not None else f"The evaluation of {run_dir}, none,"
        raise ValueError(
            f"Cannot evaluate {run_dir}: {whose} measures nothing. Choose another evaluation=, such as features; "
            "ssl-lab list evaluations shows all."
        )
    if all(protocol.needs_labels and not data_of(protocol, datamodule).labelled for protocol in protocols):
        names = ", ".join(type(inner(protocol)).__name__ for protocol in protocols)
        raise ValueError(
            f"Cannot evaluate {run_dir}: {names} need labels, and {datamodule.title} has none. Choose "
            "evaluation=label_free, or data with labels."
        )
    return protocols


def _file_name(datamodule: DataModule, cfg: DictConfig, run_cfg: DictConfig) -> str:
    """A distinct file name for each data set, folder, image size and split."""
    node = run_cfg.data if cfg.get("data") is None else cfg.data
    settings = OmegaConf.to_container(node, resolve=True)
    assert isinstance(settings, dict)
    facts = {str(name): value for name, value in settings.items() if name not in LOADING}
    places = [Path(value).name for value in facts.values() if isinstance(value, str) and Path(value).exists()]
    title = datamodule.title
    words = [title, *(place for place in places if _slug(place) and _slug(place) not in _slug(title))]
    size = "x".join(map(str, datamodule.spec.shape))
    parts = [*(_slug(word)[:60] for word in words), size, cfg.split, fingerprint([title, facts])[:6]]
    return f"evaluation_{'_'.join(part for part in parts if part)}.json"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _path(out: str | None, run_dir: Path, name: str, *, several: bool) -> Path:
    if out is None:
        return run_dir / name
    given = Path(out)
    if given.suffix != ".json" or given.is_dir():
        return given / _slug(str(run_dir.resolve())) / name if several else given / name
    if several:
        raise ValueError(f"Cannot write the evaluations of several runs to the one file {out}. Give out= a folder.")
    return given


def _refuse_other_file(path: Path, run_dir: Path, *, named: bool) -> None:
    """Refuse to add to a file that the user names and that is not this run's evaluation."""
    if not named or not path.is_file():
        return
    try:
        run = read_json(path).get("run")
    except (ValueError, AttributeError):
        run = None
    if run is None or Path(run).resolve() != run_dir.resolve():
        held = "no evaluation that this command wrote" if run is None else f"the evaluation of {run}"
        raise ValueError(f"Cannot write the evaluation of {run_dir} to {path}: it holds {held}. Give out= a new file.")


def _earlier(run_dir: Path, path: Path, method: Method, settings: Any, *, own: bool) -> list[Mapping[str, Any]]:
    """Read earlier results: of the file itself and, where the run's own file is not written to, of that too."""
    weights = judge.weights_digest(method)
    paths = list(dict.fromkeys([*([run_dir / EVALUATION] if own else []), path]))
    found = (judge.earlier_records(file, settings, weights=weights, replaced=file == path) for file in paths)
    return [record for records in found for record in records]
