"""Tables of the reference pages, made from the code: settings with meanings, metrics, tasks and commands.

A page holds marks such as ``<!-- settings: data -->``; :func:`fill` puts a table in the place of each.
"""

import importlib
import inspect
import io
import os
import re
from collections import Counter
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
PLUMBING = {"_target_", "_partial_", "_recursive_", "_convert_"}
PLUGINS = {
    "hydra_plugins.ssl_lab.OptunaSweeper": "ssl_lab.cli.sweeps.optuna_sweeper.OptunaSweeper",
    "hydra_plugins.ssl_lab.GridSweeper": "ssl_lab.cli.sweeps.grid.GridSweeper",
}
"""Where the classes are that Hydra finds by other names."""
GROUPS_OF_CHANGES = ("experiment", "sweep")
"""Groups whose files change settings of other groups."""
SHARED = 3
"""From this number of files on, a key with one meaning stands in one table for all of them."""


def fill(markdown):
    """Put tables in the place of marks."""
    makers = {"settings": settings, "keys": keys, "changes": changes, "metrics": metrics, "commands": commands}

    def made(match):
        return makers[match[1]](*filter(None, [match[2]]))

    return re.sub(rf"^<!-- ({'|'.join(makers)})(?:: *([\w/]+))? -->$", made, markdown, flags=re.MULTILINE)


def settings(group):
    """All files of a group: what each is for, and a table of its keys."""
    files = sorted((CONF / group).glob("*.yaml"))
    rows = {path.stem: [row for row in rows_of(path) if row[0] not in PLUMBING] for path in files}
    uses = Counter((key, meaning) for file in rows.values() for key, _, meaning in file)
    shared = [pair for pair, number in uses.items() if number >= SHARED]
    parts = []
    if shared:
        told = {key: [meaning for other, meaning in shared if other == key] for key, _ in shared}
        parts.append("Several choices share these keys:\n")
        parts.append(_table(("key", "meaning"), [(f"`{key}`", " / ".join(texts)) for key, texts in told.items()]))
    for path in files:
        parts.append(f"\n### `{path.stem}`\n\n{head(path)}{classes(path)}\n")
        own = [(f"`{k}`", _default(d), m) for k, d, m in rows[path.stem] if (k, m) not in shared]
        if own:
            parts.append(_table(("key", "default", "meaning"), own) + "\n")
        if others := ", ".join(f"`{k}={_plain(d)}`" for k, d, m in rows[path.stem] if (k, m) in shared):
            parts.append(f"Shared keys: {others}")
    return "\n".join(parts)


def classes(path):
    """Links to the class that a file builds, and for a task to its protocol."""
    node = yaml.safe_load(path.read_text()) or {}
    nodes = [node, node.get("method"), *(node["evaluation"].values() if path.parent.name == "task" else [])]
    targets = [part["_target_"] for part in nodes if isinstance(part, dict) and "_target_" in part]
    links = [f"[`{t.rsplit('.')[-1]}`][{t}]" for t in targets if t.startswith("ssl_lab.") and ".cli." not in t]
    return f" Built by {', '.join(links)}." if links else ""


def keys(command):
    """The examples, groups and settings of a command."""
    told = importlib.import_module("ssl_lab.cli.help").command_settings(command)
    rows = [(f"`{k}`", _default(d), _sentence(m)) for k, d, m in (*told.first, *told.groups, *told.keys)]
    examples = "".join(f"    {example}\n" for example in told.examples or (f"ssl-lab {command} run=DIR",))
    others = "".join(f"\n\nIt also takes all settings of `ssl-lab {base}`." for base in told.bases)
    return f"{examples}\n{_table(('key', 'default', 'meaning'), rows)}{others}"


def changes(group):
    """Files that change settings of other groups: what each is for, and the changes as written."""
    parts = []
    for path in sorted((CONF / group).glob("*.yaml")):
        text = re.sub(r"^(# @package.*\n)?(#.*\n)+", "", path.read_text())
        parts.append(f"### `{path.stem}`\n\n{head(path)}\n\n```yaml\n{text.strip()}\n```\n")
    return "\n".join(parts)


def metrics():
    """How the metrics of all protocols are shown."""
    rows = []
    for target in sorted(protocols()):
        for name, metric in find(target).metrics.items():
            table = metric.table.title if metric.table else ""
            column = re.sub(r"\{(\d)\}", "…", metric.column)
            rows.append((f"`{name}`", f"`{target.rsplit('.')[-1]}`", column, table, metric.arrow))
    return _table(("metric", "protocol", "column", "table", "better"), rows)


def commands():
    """Each command with its usage and its settings."""
    commands_module = importlib.import_module("ssl_lab.cli.commands")
    parts = []
    for name, purpose in commands_module.COMMANDS.items():
        parts.append(f"## `ssl-lab {name}`\n\n{_sentence(purpose)}\n")
        if (CONF / f"{name}.yaml").is_file():
            parts.append(f"{keys(name)}\n")
        else:
            parts.append(f"```text\n{_help(name)}\n```\n")
    return "\n".join(parts)


def rows_of(path):
    """Each key of a file with its default and its meaning: that of its class, and the comment beside it."""
    text = path.read_text()
    node = yaml.safe_load(text) or {}
    bases = [entry for entry in node.get("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    base_texts = [(path.parent / f"{base}.yaml").read_text() for base in bases]
    comments = {key: told for one in (*base_texts, text) for key, told in _comments(one).items()}
    rows = []

    def walk(node, prefix, owner):
        owner = node.get("_target_", owner)
        for key, value in node.items():
            if key in PLUMBING or key in ("defaults", "hydra"):
                continue
            dotted = f"{prefix}{key}"
            comment = comments.get(dotted, "")
            told = documented(owner).get(key, "") if owner and not (comment and _is_foreign(owner)) else ""
            meaning = joined(told, comment)
            built = isinstance(value, dict) and "_target_" in value
            if isinstance(value, dict) and set(value) - PLUMBING and (built or not meaning):
                walk(value, f"{dotted}.", value.get("_target_"))
            elif not built or meaning:
                rows.append((dotted, value, meaning))

    for entry in node.get("defaults", []):
        for name, choice in entry.items() if isinstance(entry, dict) else ():
            if name.startswith(("override", "optional")):
                continue
            group, _, place = name.lstrip("/").partition("@")
            place = place or group
            meaning = documented(node.get("_target_")).get(place, "") if node.get("_target_") else ""
            key = f"{group}@{place}" if place != group else group
            rows.append((key, choice, meaning or f"A choice of the group `{group}`."))
    owners = [yaml.safe_load(one).get("_target_") for one in base_texts]
    walk({key: value for key, value in node.items() if key != "hydra"}, "", next(filter(None, owners), None))
    return rows


def joined(meaning, comment):
    """A meaning, followed by the comment on the value if most of its words are new."""
    words = [word for word in re.findall(r"\w+", comment.lower()) if word not in ("a", "an", "as", "in", "of", "the")]
    new = [word for word in words if word not in re.findall(r"\w+", meaning.lower())]
    if not meaning or 2 * len(new) > len(words):
        return " ".join(_sentence(text) for text in (meaning, comment) if text)
    return _sentence(meaning)


def _sentence(text):
    """A text as a sentence; one that begins with a value or a symbol, such as ``run:DIR``, keeps its first letter."""
    if re.match(r"(?!(null|true|false|last|text|prompt|key):)[a-z]+(-[a-z]+)*([ ,;]|: |$)", text):
        text = text[:1].upper() + text[1:]
    return text if not text or text.endswith(".") else f"{text}."


def without_meaning():
    """Keys of conf/ that neither their class nor a comment explains, as ``file: key``."""
    paths = [path for path in sorted(CONF.rglob("*.yaml")) if path.parent.name not in GROUPS_OF_CHANGES]
    return [
        f"{path.relative_to(CONF)}: {key}"
        for path in paths
        if "local" not in path.parts
        for key, _, meaning in rows_of(path)
        if not meaning
    ]


def head(path):
    """The first comment of a file, its first line as a sentence of its own, and commands as code."""
    lines = path.read_text().splitlines()
    told = [line[1:].removeprefix(" ") for line in lines[: len(lines)] if line.startswith("#")]
    told = [line for line in told if not line.startswith("@package")]
    told = [_sentence(told[0]), *(f"\n    {line.strip()}\n" if line.startswith("  ") else line for line in told[1:])]
    return re.sub(r"\(([\w.]+=)\)", r"(`\1`)", "\n".join(told)).strip("\n")


def protocols():
    """The classes of protocols that files of conf/ name."""
    nodes = [yaml.safe_load(path.read_text()) or {} for path in (CONF / "evaluation").glob("*.yaml")]
    nodes += [yaml.safe_load(path.read_text())["evaluation"] for path in (CONF / "task").glob("*.yaml")]
    return {value["_target_"] for node in nodes for value in node.values() if "_target_" in value}


@cache
def find(target):
    """The class or function of a ``_target_``."""
    module, _, name = PLUGINS.get(target, target).rpartition(".")
    return getattr(importlib.import_module(module), name)


def _is_foreign(target):
    """Whether a class is another library's: our own comment on its argument is then the whole meaning."""
    return not find(target).__module__.startswith(("ssl_lab", "hydra_plugins"))


@cache
def documented(target):
    """What the ``Args:`` and ``Attributes:`` of a class and its bases say of each argument."""
    found = find(target)
    told = {}
    for kind in reversed(inspect.getmro(found) if inspect.isclass(found) else [found]):
        own = kind.__module__.startswith(("ssl_lab", "hydra_plugins"))
        texts = [kind.__doc__, *([] if own else [getattr(kind, "__init__", kind).__doc__])]
        for text in filter(None, texts):
            told |= arguments(inspect.cleandoc(text), whole=own)
    return told


def arguments(text, *, whole=True):
    """Names and texts of the ``Args:`` sections of a docstring; of a stranger's the first sentence alone."""
    told = {}
    for section in re.findall(r"^(?:Args|Attributes):\n((?:(?: +.*)?\n?)*)", text, re.MULTILINE):
        indent = len(section) - len(section.lstrip(" "))
        argument = rf"^ {{{indent}}}\*{{0,2}}(\w+)(?: *\([^)]*\))?: *((?:.*\n?)(?:^ {{{indent + 1},}}.*\n?|\n)*)"
        for name, words in re.findall(argument, section, re.MULTILINE):
            words = " ".join(words.split())
            told[name] = markdown(words if whole else re.split(r"(?<=\w)\.(?: |$)", words)[0])
    return told


def markdown(text):
    """A docstring's roles and literals as Markdown."""
    role = r":(?:class|func|meth|data|mod|ref|attr|paramref):`~?([^`<]+?)(?: *<[^>]+>)?`"
    text = re.sub(role, lambda m: f"`{m[1].split('.')[-1]}`", text)
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    text = re.sub(r"\bNone\b", "`null`", text)
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def _comments(text):
    """The comment beside each key, by its dotted name."""
    told, path = {}, []
    for line in text.splitlines():
        if not (match := re.match(r"( *)([\w.@/]+):(.*)$", line)):
            continue
        indent, key, rest = len(match[1]), match[2], match[3]
        path = [(i, k) for i, k in path if i < indent] + [(indent, key)]
        if comment := re.search(r"(?:^|\s)# (.*)$", re.sub(r"'[^']*'|\"[^\"]*\"", lambda m: "x" * len(m[0]), rest)):
            told[".".join(k for _, k in path)] = rest[comment.start(1) :]
    return told


def _plain(value):
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip().removesuffix("\n...")


def _default(value):
    if value == "???":
        return "**required**"
    shown = _plain(value)
    return f"`{shown}`" if shown and not shown.startswith("runs/${") else ""  # the meaning says where runs are


def _table(columns, rows):
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [re.sub(r"(?<!\\)[|]", r"\|", " ".join(cell.split())) for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _help(name):
    run = importlib.import_module(f"ssl_lab.cli.commands.{name}").run
    out = io.StringIO()
    columns, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "90"
    try:
        with redirect_stdout(out):
            run(["--help"])
    except SystemExit:
        pass
    finally:
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    return out.getvalue().strip()
