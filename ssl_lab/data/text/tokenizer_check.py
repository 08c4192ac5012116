"""Tokenizers of other people, tried before they are used: a file of them can hang, crash or grow without end."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from ssl_lab.limited import load_json, parse_json, read_text

_LARGEST_FILE = 256 << 20
_LARGEST_ID = 1 << 20
_PATIENCE_SEC = 30
_USUAL = (*"aA1 ._-\n\u00e9\u4e2d",)
_MOST_PARTS = 200
# In a process of its own: what goes wrong there is an abort, a panic or no end, none of which an exception tells.
_TRIAL = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
except ImportError:  # Windows: its memory is not limited
    pass
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1])
for part in sys.stdin.read().split("\\0"):
    many = part * (400 // len(part))
    for text in (many, many + "!", ("a" + part) * (400 // (1 + len(part))) + "\\0"):
        if len(tokenizer.encode(text).ids) > 100 * len(text):
            sys.exit("a text of 400 characters becomes more than 40,000 tokens")
"""


_BESIDE = (
    "vocab.json", "added_tokens.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "merges.txt",
    "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip
"""Files that transformers reads beside, or instead of, ``tokenizer.json``."""
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")


def check_tokenizer_files(folder: Path) -> None:
    """Look through the files of a tokenizer's folder, and try the one that holds patterns.

    Raises:
        ValueError: If a file is no tokenizer's, its ids need a table that no memory holds, or short texts hang or crash it.
    """
    config = folder / "tokenizer_config.json"
    if config.is_file():
        _check_size(config, config.stat().st_size)
    others = (load_json(config) if config.is_file() else {}).get("fast_tokenizer_files") or []
    whole = ["tokenizer.json", *map(str, others if isinstance(others, list) else [others])]  # of which one is taken
    for name in (*_BESIDE, *whole):
        path = folder / name
        if path.is_file():
            facts = path.stat()
            (_check if name in whole else _check_beside)(path, facts.st_size, facts.st_mtime_ns)


@cache
def _check_beside(path: Path, size: int, changed: int) -> None:
    _check_size(path, size)
    if path.suffix == ".json":
        content = parse_json(read_text(path, max_bytes=_LARGEST_FILE), path)
        _check_ids(path, list(_added_ids(content) if path.name in _SETTINGS else _ids_beside(content)))


def _added_ids(settings: Any) -> Iterator[float]:
    """Numbers of added tokens in settings, whose other numbers mean anything, and how many ``extra_ids`` make."""
    if isinstance(settings, dict):
        added = settings.get("added_tokens_decoder")
        yield from (float(number) for number in added or {} if re.fullmatch(r"-?[0-9]{1,300}", str(number)))
        yield from _ids_beside(settings.get("extra_ids"))


def _ids_beside(node: Any) -> Iterator[float]:
    """Numbers of tokens: values by token, as deep as they are."""
    if isinstance(node, dict):
        for below in node.values():
            yield from _ids_beside(below)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield node


def _check_size(path: Path, size: int) -> None:
    if size > _LARGEST_FILE:
        raise ValueError(f"{path} has {size:,} bytes, more than any tokenizer. Restore it, or choose another.")


@cache
def _check(path: Path, size: int, changed: int) -> None:
    _check_size(path, size)
    settings = parse_json(read_text(path, max_bytes=_LARGEST_FILE), path)
    _check_ids(path, list(_ids(settings)))
    if not _is_plain(settings):
        _try(path, settings, str(path))


def check_loaded(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    """Try a tokenizer as it was put together: the files of one of the hub are not known before.

    Raises:
        ValueError: As :func:`check_tokenizer_files`.
    """
    _check_ids(Path(name), list(tokenizer.get_vocab().values()))  # first: to_str counts from 0 to the largest
    text = tokenizer.backend_tokenizer.to_str()
    settings = parse_json(text, Path(name))
    ids = list(_ids(settings))
    if not ids:
        raise ValueError(f"{name} has no tokens. Restore its files, or choose another tokenizer.")
    if set(tokenizer.get_vocab().values()) <= set(tokenizer.all_special_ids):
        raise ValueError(
            f"Cannot use the tokenizer {name}: it has no tokens but its {len(tokenizer)} special ones, so that every text is "
            "unknown to it. Restore its vocabulary, or choose another tokenizer."
        )
    _check_ids(Path(name), ids)
    if not _is_plain(settings) and not Path(name).is_dir():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "tokenizer.json")
            path.write_text(text, encoding="utf-8")
            _try(path, settings, name)


def _try(path: Path, settings: dict[str, Any], name: str) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-X", "utf8", "-c", _TRIAL, str(path)],
            input="\0".join(dict.fromkeys([*_USUAL, *islice(_parts(settings), _MOST_PARTS)])),
            capture_output=True,
            encoding="utf-8",
            timeout=_PATIENCE_SEC,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(
            f"{name} takes more than {_PATIENCE_SEC} s for texts of 400 characters, perhaps for a pattern that tries all "
            "ways to match. Simplify its patterns and normalizers, or choose another tokenizer."
        ) from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("note:")]
        reason = lines[-1][:300] if lines else f"exit code {done.returncode}"
        raise ValueError(f"{name} fails on texts of 400 characters ({reason}). Repair it, or choose another tokenizer.")


def _check_ids(path: Path, ids: Sequence[float]) -> None:
    if ids and not (0 <= min(ids) and max(ids) < max(_LARGEST_ID, 2 * len(ids))):
        raise ValueError(
            f"{path} has {len(ids):,} tokens, but ids from {min(ids):,.0f} to {max(ids):,.0f}: a table of embeddings for "
            "them would be larger than any memory. Number the tokens from 0, or choose another tokenizer."
        )


def _ids(settings: dict[str, Any]) -> list[int]:
    model = settings.get("model") or {}
    vocab = model.get("vocab") if isinstance(model, dict) else None
    ids = list(vocab.values()) if isinstance(vocab, dict) else list(range(len(vocab or [])))
    added = [token.get("id") for token in settings.get("added_tokens") or [] if isinstance(token, dict)]
    framing = list(_framing_ids(settings.get("post_processor")))
    return [number for number in [*ids, *added, *framing] if isinstance(number, int | float)]  # type: ignore[misc]


def _framing_ids(node: Any) -> Iterator[Any]:
    """Ids that are put around a text: ``ids`` of a template, and pairs of a token and its id."""
    if isinstance(node, dict):
        if isinstance(node.get("ids"), list):
            yield from node["ids"]
        node = list(node.values())
    if isinstance(node, list):
        if len(node) == 2 and isinstance(node[0], str):
            yield node[1]
        for below in node:
            yield from _framing_ids(below)


def _parts(node: Any) -> Iterator[str]:
    """Of what texts are made that the patterns may match in many ways: the characters and words within them."""
    if isinstance(node, dict):
        for key, below in node.items():
            if key in ("Regex", "String") and isinstance(below, str):
                yield from re.findall(r"\w{2,40}", below)
                yield from (char for char in dict.fromkeys(below) if char != "\0")
            elif key not in ("vocab", "merges"):
                yield from _parts(below)
    elif isinstance(node, list):
        for below in node:
            yield from _parts(below)


def _is_plain(node: Any) -> bool:
    """Return whether no pattern and no replacement of text occurs, at any depth but in the words."""
    if isinstance(node, dict):
        if node.get("type") in ("Replace", "Prepend", "Precompiled"):
            return False
        return "Regex" not in node and all(
            _is_plain(below) for key, below in node.items() if key not in ("vocab", "merges")
        )
    return all(map(_is_plain, node)) if isinstance(node, list) else True
