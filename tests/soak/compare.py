"""What a folder must have in common with one where the same commands were left alone: every file, times within reason."""

import csv
import json
import math
import re
from pathlib import Path

import torch

TIMES = ("wall_time_sec", "training_time_sec", "evaluation_time_sec", "samples_per_sec")
WITNESSES = ("started", "time", "host", "pid", "slurm_job_id", "versions", "commit", "hardware", "created")
LEFT_OVER = (".unfinished", ".partial", ".tmp", ".replaced", ".old")
# A life that is killed loses what it measured since its last checkpoint, and machines are busy; but no time is lost whole.
SHORTEST, LONGEST, GRACE_SEC = 0.2, 8.0, 5.0

_CLOCK = re.compile(r"\d{4}-\d\d-\d\d[ T_]\d\d[:-]\d\d([:-]\d\d)?([.,]\d+)?(\+\d\d:?\d\d|Z)?")
_DAY = re.compile(r"(\d{4}-\d\d-\d\d|\d{1,2} [A-Z][a-z]+ \d{4})(, \d\d:\d\d UTC)?")
_SPEED = re.compile(r"[\d,.]+(\s*|<small>)(samples/s|samples per second|tokens/s|steps/s|ms|s|sec|seconds|min|h)\b")
_COMMIT = re.compile(r"<dt>Commit</dt><dd>[^<]*")
_SPEED_CURVE = re.compile(
    r"<h3>(Samples per|Tokens per|Waiting for|Evaluation, %|Operations, |Memory of )[^<]*</h3>.*?</svg>", re.S
)


def files(folder):
    """Relative paths of all files and links below a folder but locks, which hold nothing."""
    found = (path for path in Path(folder).rglob("*") if path.is_file() or path.is_symlink())
    return {str(path.relative_to(folder)): path for path in found if not path.name.endswith(".lock")}


def differences(folder, peace, *, unlike=()):
    """What is not as in ``peace``, one line for each.

    Files whose paths match a pattern of ``unlike`` may differ. Both were written in the same place, so that paths agree.
    """
    told, mine, theirs = [], files(folder), files(peace)
    told += [f"{name} is missing" for name in sorted(theirs.keys() - mine.keys()) if not _excused(name, unlike)]
    extra = [name for name in sorted(mine.keys() - theirs.keys()) if not _excused(name, unlike)]
    for name in [name for name in extra if Path(name).name == "previous.ckpt"]:  # where a run in peace saves but once
        extra.remove(name)
        told += [f"{name}: {line}" for line in _checkpoints(mine[name], theirs[str(Path(name).with_name("last.ckpt"))])]
    told += [f"{name} is left over" if _is_temporary(name) else f"{name} should not be there" for name in extra]
    empty = {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_dir()}
    wanted = {str(path.relative_to(peace)) for path in Path(peace).rglob("*") if path.is_dir()}
    told += [f"folder {name} is left over" for name in sorted(empty - wanted) if not _excused(name, unlike)]
    for name in sorted(mine.keys() & theirs.keys()):
        if _excused(name, unlike):
            continue
        if mine[name].is_symlink() != theirs[name].is_symlink():
            told.append(f"{name} is a {'link' if mine[name].is_symlink() else 'file'} now")
        elif mine[name].stat().st_mode != theirs[name].stat().st_mode:
            told.append(f"the mode of {name} is {mine[name].stat().st_mode:o}, not {theirs[name].stat().st_mode:o}")
        told += [f"{name}: {what}" for what in different(mine[name], theirs[name])]
    return told


def _excused(name, patterns):
    return any(re.search(pattern, name) for pattern in patterns)


def _is_temporary(name):
    return any(mark in name for mark in LEFT_OVER) or any(part.startswith(".") for part in Path(name).parts)


def different(path, peace):
    """How one file differs from the one in peace."""
    try:
        return _compare(path, peace)
    except Exception as error:  # half a file is what all this looks for
        return [f"cannot be read: {type(error).__name__}: {error}"]


def _compare(path, peace):
    if path.suffix == ".ckpt":
        return _checkpoints(path, peace)
    if path.name == "heartbeat.json":  # one beat of many; which, is a matter of luck
        mine, theirs = (json.loads(each.read_text()) for each in (path, peace))
        return [] if mine.keys() == theirs.keys() else [f"other keys: {sorted(mine.keys() ^ theirs.keys())}"]
    if path.suffix == ".json":
        return _values(*(json.loads(each.read_text()) for each in (path, peace)))
    if path.name == "metrics.csv":
        return _metrics(path, peace)
    if path.name.startswith("run.log"):
        return _log(path)
    if path.suffix in (".html", ".md", ".yaml", ".txt", ".tex", ".csv"):
        return _lines(*(_timeless(each.read_text()) for each in (path, peace)))
    return [] if path.read_bytes() == peace.read_bytes() else ["other bytes"]


def _timeless(text):
    for pattern, word in (
        (_SPEED_CURVE, "CURVE"),
        (_COMMIT, "COMMIT"),
        (_CLOCK, "CLOCK"),
        (_DAY, "DAY"),
        (_SPEED, "SPEED"),
    ):
        text = pattern.sub(word, text)
    return text


def _lines(mine, theirs):
    if mine == theirs:
        return []
    a, b = mine.splitlines(), theirs.splitlines()
    if len(a) != len(b):
        extra = [line for line in a if line not in set(b)][:2] or [line for line in b if line not in set(a)][:2]
        return [f"{len(a)} lines, not {len(b)}: {[line[:160] for line in extra]}"]
    x, y = next((x, y) for x, y in zip(a, b, strict=True) if x != y)
    at = next((k for k, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
    return [f"…{x[max(at - 60, 0) : at + 60]}… instead of …{y[max(at - 60, 0) : at + 60]}…"]


def _values(mine, theirs, where=""):
    """Differences of two nests of numbers, texts and tensors."""
    key = where.rpartition(".")[2]
    if isinstance(theirs, torch.Tensor):
        return [] if same(mine, theirs) else [f"{where} differs"]
    if key.startswith("perf/"):
        return [] if isinstance(mine, float) and mine >= 0 else [f"{where} is {mine}, not {theirs}"]
    if key in WITNESSES:
        return [] if type(mine) is type(theirs) else [f"{where} is {mine!r}, not {theirs!r}"]
    if key in TIMES:
        return _times(where, mine, theirs)
    if isinstance(mine, dict) and isinstance(theirs, dict):
        told = [f"{where}.{name} is missing" for name in theirs.keys() - mine.keys()]
        told += [f"{where}.{name} = {mine[name]!r} should not be there" for name in mine.keys() - theirs.keys()]
        return told + [
            d for name in mine if name in theirs for d in _values(mine[name], theirs[name], f"{where}.{name}")
        ]
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        return [d for k, (a, b) in enumerate(zip(mine, theirs, strict=True)) for d in _values(a, b, f"{where}[{k}]")]
    if isinstance(mine, str) and isinstance(theirs, str):
        mine, theirs = _timeless(mine), _timeless(theirs)
    return [] if mine == theirs else [f"{where} is {str(mine)[:200]!r}, not {str(theirs)[:200]!r}"]


def _times(where, mine, theirs):
    """A time that was measured in peace is there, positive, and of the same order."""
    if not theirs:
        return [] if mine == theirs else [f"{where} is {mine}, not {theirs}"]
    if not isinstance(mine, int | float) or not math.isfinite(mine):
        return [f"{where} is {mine}, not about {theirs:.3g}"]
    if where.endswith("per_sec"):
        fits = theirs / LONGEST < mine < theirs * LONGEST
    else:
        fits = SHORTEST * theirs - 0.1 < mine < LONGEST * theirs + GRACE_SEC and mine > 0
    return [] if fits else [f"{where} is {mine:.3g}, not about {theirs:.3g}"]


def _metrics(path, peace):
    """Rows of metrics.csv: all but speeds to the last digit; a row counts once; speeds are there where they were."""
    tables = []
    for each in (path, peace):
        with each.open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    mine, theirs = tables
    if not mine or not theirs:
        return [] if mine == theirs else [f"{len(mine)} rows, not {len(theirs)}"]
    if set(mine[0]) != set(theirs[0]):
        return [f"other columns: {sorted(set(mine[0]) ^ set(theirs[0]))}"]
    if [row["step"] for row in mine] != [row["step"] for row in theirs]:
        return [f"steps {[row['step'] for row in mine]}, not {[row['step'] for row in theirs]}"]
    told = []
    for a, b in zip(mine, theirs, strict=True):
        names = [n for n in a if (bool(a[n]) != bool(b[n]) if n.startswith("perf/") else a[n] != b[n])]
        told += [f"step {a['step']}: {name} is {a[name]!r}, not {b[name]!r}" for name in names]
    return told[:3]


def _log(path):
    """A life has begun; of several the last has finished. A first life that dies after its last file says no more."""
    lines = path.read_text().splitlines()
    lives = sum(line.endswith("INFO begins") for line in lines)
    if lives == 0:
        return ["no life begins"]
    return [] if lives == 1 or lines[-1].endswith("has finished") else [f"ends with {lines[-1:]}"]


def _checkpoints(path, peace):
    """All of a checkpoint to the last bit; the times that callbacks measure within reason."""
    mine, theirs = (torch.load(each, weights_only=True) for each in (path, peace))
    if path.name == "previous.ckpt":  # of another step after a kill; but whole
        return [] if mine.keys() == theirs.keys() else [f"other parts: {sorted(mine.keys() ^ theirs.keys())}"]
    parts = [part for part in sorted(mine.keys() | theirs.keys()) if part != "callbacks"]
    told = [f"{part} differs" for part in parts if not same(mine.get(part), theirs.get(part))]
    return told + _values(*(run.get("callbacks", {}) for run in (mine, theirs)), "callbacks")


def same(a, b):
    """Whether two nests of tensors are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
