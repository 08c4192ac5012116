"""Who may import whom: only downwards, and siblings do not see each other."""

import ast
import re
from pathlib import Path

import ssl_lab
from ssl_lab.cli.commands import COMMANDS

ROOT = Path(ssl_lab.__file__).parent
LOWEST = {"types", "devices", "modalities", "layers", "limited", "files", "measured", "metrics", "captions", "outputs"}
LOWEST |= {"tensors", "locks", "extras", "verdict"}
LOWER = {"optim", "timm_optim", "distributed", "losses", *LOWEST}
PARTS = {"encoders", "generators", "heads", "teacher", "pretext", *LOWER}
MAY_IMPORT = {
    "types": {"captions", "layers"},
    "devices": set(),
    "modalities": {"types"},
    "layers": set(),
    "limited": {"locks"},
    "measured": set(),
    "metrics": set(),
    "improving": {"metrics"},
    "verdict": {"improving", "measured", "metrics"},
    "captions": {"metrics"},
    "outputs": {"files", "limited", "locks"},
    "files": {"locks"},
    "locks": set(),
    "extras": set(),
    "tensors": {"limited"},
    "optim": LOWEST,
    "timm_optim": {"optim", *LOWEST},
    "distributed": LOWEST,
    "losses": {"devices"},
    "heads": LOWEST,
    "teacher": LOWEST,
    "pretext": LOWEST,
    "runs": LOWEST,
    "encoders": {"heads", "pretext", *LOWEST},
    "generators": {"heads", *LOWEST},
    "data": {"distributed", *LOWEST},
    "evaluation": {"data", "encoders", "pretext", "distributed", "losses", *LOWEST},
    "methods": PARTS,
    "tasks": {"methods", "evaluation", "data", *PARTS},
    "generate": {"runs", "evaluation", *LOWEST},
    "pictures": {"methods", "data", *PARTS},
    "report": {"runs", "tasks", "pictures", "methods", "evaluation", "pretext", *LOWEST},
    "export": {"report", "runs", "evaluation", "tasks", "methods", *PARTS},
    "engine": {"tasks", "pictures", "methods", "evaluation", "data", "runs", *PARTS},
    "predict": {"report", "tasks", "methods", "evaluation", "data", *LOWEST},
    "testing": {"engine", "tasks", "methods", "evaluation", "data", "pretext", *LOWEST},
    "api": {"cli", "engine", "report", "runs", "predict", "evaluation", "data", "methods", *PARTS},
    "cli": {
        "engine",
        "report",
        "export",
        "generate",
        "predict",
        "tasks",
        "pictures",
        "methods",
        "evaluation",
        "data",
        "runs",
        *PARTS,
    },
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_imports_point_downwards():
    wrong = []
    for path in ROOT.rglob("*.py"):
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for name in imports(path):
            inside = name.split(".")[1] if name.startswith("ssl_lab.") else None
            if inside and inside != part and inside not in MAY_IMPORT[part]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_only_the_command_line_knows_hydra_and_losses_know_only_torch():
    allowed = {"torch", "math", "__future__", "collections", "dataclasses", "typing", "ssl_lab"}
    for path in ROOT.rglob("*.py"):
        part = path.relative_to(ROOT).parts[0]
        roots = {name.split(".")[0] for name in imports(path)}
        assert part == "cli" or not roots & {"hydra", "omegaconf"}, path
        assert part != "losses" or roots <= allowed, path


def test_reports_know_no_more_of_what_computes_than_how_metrics_and_pictures_are_shown():
    allowed = {"__future__", "collections.abc", "dataclasses", "ssl_lab.metrics", "ssl_lab.captions"}
    rooms = {
        "evaluation": "metrics",
        "tasks": "metrics",
        "methods": "captions",
        "pictures": "captions",
        "pretext": "captions",
    }
    for path in (path for room, shown in rooms.items() for path in (ROOT / room).rglob(f"{shown}.py")):
        assert set(imports(path)) <= allowed, path
    for path in (ROOT / "report").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            room = ((node.module or "").split(".") + [""])[1] if isinstance(node, ast.ImportFrom) else ""
            if room in rooms:
                assert [alias.name for alias in node.names] == [rooms[room]], path


def test_no_modules_import_each_other():
    modules = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
    arrows = {
        name: {other for other in imports(path) if other in modules and other != name} for name, path in modules.items()
    }
    for name in arrows:
        seen, ahead = set(), list(arrows[name])
        while ahead:
            other = ahead.pop()
            if other not in seen:
                seen.add(other)
                ahead += arrows[other]
        assert name not in seen, f"{name} imports itself by way of others"


def test_each_command_is_a_file_of_its_name():
    files = {path.stem for path in (ROOT / "cli" / "commands").glob("*.py")} - {"__init__"}
    assert files == set(COMMANDS)


def test_no_room_but_modalities_asks_which_modality_or_encoder_it_has():
    """What differs by modality stands in its file; what differs by encoder is its own method, or registered by its class."""
    encoders = "TextTransformer|ViT|ResNet|ConvNet|TimmModel|DualEncoder"
    asks = re.compile(rf"\.modality\b *(==|!=|in\b|not in\b)|(?<!not )isinstance\([^()]*\b({encoders})\b")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in ROOT.rglob("*.py")
        if path.relative_to(ROOT).parts[0] not in ("modalities", "encoders")
        for line in path.read_text().splitlines()
        if asks.search(line)
    ]
    assert not found
