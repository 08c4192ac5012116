"""``ssl-lab prepare``: tokenise a corpus once."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig

from ssl_lab.cli import build as config
from ssl_lab.data.text.base import TextModule
from ssl_lab.data.text.prepare import prepare as write_shards
from ssl_lab.outputs import check_output


def run(cfg: DictConfig, args: list[str]) -> int:
    """``ssl-lab prepare``: tokenise a text corpus once, into shards for ``data=shards``."""
    check_output(Path(cfg.out), folder=True)
    datamodule = config.build_data(cfg.data, seed=0)
    if not isinstance(datamodule, TextModule):
        raise ValueError(
            f"ssl-lab prepare tokenises text, but data= is a {type(datamodule).__name__}. Choose data=text_files, hub_text "
            "or python_docs."
        )
    out = Path(cfg.out)
    try:
        manifest = write_shards(datamodule, out, num_workers=cfg.num_workers, shard_mib=cfg.shard_mib)
    except KeyboardInterrupt:
        print("ssl-lab: Stopped. Run the same command again to continue after the finished shards.", file=sys.stderr)
        return 130
    for split, facts in manifest["splits"].items():
        counts = facts["counts"]
        print(
            f"{split:8} {counts['num_documents']:,} documents, {counts['num_words']:,} words, {counts['num_bytes']:,} bytes: "
            f"{facts['num_tokens']:,} tokens in {len(facts['shards'])} shards"
        )
    print(f"{manifest['tokenizer']['vocab_size']:,} ids. Train on them with data=shards data.path={out}")
    return 0
