"""``ssl-lab embed``: a run's features as a parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from ssl_lab.cli import build as config
from ssl_lab.cli.commands.evaluate import _holds_features
from ssl_lab.cli.data_of_run import data_for_run
from ssl_lab.cli.process import find_device
from ssl_lab.data.base import has_split
from ssl_lab.evaluation.protocol import check_finite
from ssl_lab.files import write_atomically
from ssl_lab.outputs import check_output, clear


@torch.no_grad()
def run(cfg: DictConfig, args: list[str]) -> int:
    """``ssl-lab embed``: features of every sample as a parquet file; new data are taken as a whole, nothing is cut off."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    run_dir, out, device = Path(cfg.run), Path(cfg.out), find_device()
    if cfg.splits is not None and (not cfg.splits or len(set(cfg.splits)) < len(cfg.splits)):
        raise ValueError(f"Cannot embed splits={cfg.splits}. Give different splits, at least one, or null for all.")
    check_output(out, ours=_holds_features)
    if out.suffix != ".parquet":
        raise ValueError(
            f"Cannot write features to out={out}: they are a parquet file. Give out= a name that ends in .parquet."
        )
    clear(out, runs=[run_dir])
    run_cfg, spec, method = config.load_run(run_dir)
    if (new := cfg.get("data")) is not None:
        chosen = {arg.partition("=")[0] for arg in args}
        new.update(
            {name: 0 for name in ("val_fraction", "test_fraction") if name in new and f"data.{name}" not in chosen}
        )
    datamodule = data_for_run(run_cfg, run_dir, spec, new)
    method.to(device)
    tables = []
    for split in cfg.splits or [split for split in ("train", "val", "test") if has_split(datamodule, split)]:
        found = []
        for batch in datamodule.eval_dataloader(split):
            features = method.features({name: column.to(device) for name, column in batch.items()}).float().cpu()
            found.append(features)
            columns: dict[str, Any] = {"split": [split] * len(features), "index": batch["index"].tolist()}
            if datamodule.labelled:
                labels = batch["label"].tolist() if "label" in batch else [-1] * len(features)
                columns["label"] = pa.array([label if label >= 0 else None for label in labels], pa.int64())
            columns["features"] = pa.FixedSizeListArray.from_arrays(
                pa.array(features.flatten().numpy()), features.shape[1]
            )
            tables.append(pa.table(columns))
        check_finite(torch.cat(found), split, use="written")
    table = pa.concat_tables(tables)
    write_atomically(out, lambda path: pq.write_table(table, path), through_link=True)
    print(f"{table.num_rows:,} rows of {features.shape[1]} features: {out}")
    return 0
