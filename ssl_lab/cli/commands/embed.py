"""``ssl-lab embed``: a run's features of a data set, or of a user's own files and texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from ssl_lab.cli.inputs import check_inputs, has_inputs, places, refuse_input, tell_unread
from ssl_lab.limited import printable
from ssl_lab.outputs import check_output, clear
from ssl_lab.predict.outputs import FEATURE_ENDINGS, check_ending, holds_features, rows_beside

if TYPE_CHECKING:
    from ssl_lab.data.base import DataModule
    from ssl_lab.predict.features import Features


def check(cfg: DictConfig) -> None:
    """Refuse what cannot be meant, before anything slow is imported."""
    if cfg.splits is not None and (not cfg.splits or len(set(cfg.splits)) < len(cfg.splits)):
        raise ValueError(f"Cannot embed splits={cfg.splits}. Give different splits, at least one, or null for all.")
    check_inputs(cfg)
    if has_inputs(cfg):
        unused = [f"{name}=" for name in ("data", "splits") if cfg.get(name) is not None]
        if unused:
            raise ValueError(
                f"{unused[0]} has no effect on samples of yours. Leave it out, or leave input= and text= out."
            )
    out = Path(cfg.out)
    check_output(out)
    check_ending(out, FEATURE_ENDINGS)
    check_output(out, ours=holds_features)
    if out.suffix == ".npy":
        check_output(rows_beside(out), ours=holds_features_rows)
    refuse_input(out, places(cfg))


def holds_features_rows(path: Path) -> bool:
    """Return whether this command wrote the rows beside an array, which is then there too."""
    array = path.with_name(f"{path.name.removesuffix('.rows.csv')}.npy")
    return array.is_file() and holds_features(array)


def run(cfg: DictConfig, args: list[str]) -> int:
    """``ssl-lab embed``: a row for each sample, in the order of their source."""
    from ssl_lab.predict.features import write_features

    run_dir, out = Path(cfg.run), Path(cfg.out)
    clear(out, runs=[run_dir])
    found = features_asked(cfg, args)
    files = write_features(found, out)
    beside = f" Rows: {files[1]}" if len(files) > 1 else ""
    print(printable(f"{len(found):,} rows of {found.values.shape[1]} features: {out}.{beside}"))
    return 0


def features_asked(cfg: DictConfig, args: list[str]) -> Features:
    """Features of a user's samples, or else of the chosen data or the run's own."""
    from ssl_lab.cli.progress import counting
    from ssl_lab.cli.using import features_of_inputs, open_to_use
    from ssl_lab.predict.features import Features, features_of_data, num_samples

    opened = open_to_use(Path(cfg.run))
    if has_inputs(cfg):
        found, values = features_of_inputs(cfg, opened)
        tell_unread(found.unreadable, opened.datamodule)
        rows = [{**each.origin, **each.shown} for each in found.given]
        names = list(dict.fromkeys(name for row in rows for name in row))
        return Features(columns={name: [row.get(name) for row in rows] for name in names}, values=values)
    datamodule = data_asked(cfg, args)
    with counting(num_samples(datamodule, cfg.splits), "samples") as advance:
        return features_of_data(opened.method, datamodule, opened.device, splits=cfg.get("splits"), advance=advance)


def data_asked(cfg: DictConfig, args: list[str]) -> DataModule:
    """The data to embed: those of ``data=``, uncut unless the command names splits, else the run's own."""
    from ssl_lab.cli.build import read_setup
    from ssl_lab.cli.data_of_run import data_for_run

    run_cfg, spec = read_setup(Path(cfg.run))
    new = cfg.get("data")
    if new is not None:
        chosen = {arg.partition("=")[0] for arg in args}
        fractions = [name for name in ("val_fraction", "test_fraction") if name in new and f"data.{name}" not in chosen]
        new.update(dict.fromkeys(fractions, 0))
    return data_for_run(run_cfg, Path(cfg.run), spec, new)
