"""What the pages in docs/ say exists: links, pages of methods, commands, and the code of the how-to pages."""

import importlib.util
import re
import shlex
from functools import cache

import pytest
import torch
import yaml
from arrays import ArrayImages
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from pages import PAGES, ROOT, own_files

from ssl_lab.cli.build import build_data, build_method, build_protocols
from ssl_lab.cli.commands import COMMANDS
from ssl_lab.cli.paths import choices, config_dir
from ssl_lab.cli.sweeps.register import register_sweepers
from ssl_lab.cli.trust.targets import split_off_trust, trusting
from ssl_lab.testing import train

NOT_COMPOSED = ("list", "runs", "report", "leaderboard", "dashboard")
TEXTS = ("text=", "prompt=", "second_text=", "question=")  # which the command quotes by itself
FLAGS = ("-m", "--multirun", "--cfg", "job", "--package")

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def nav_pages(node):
    if isinstance(node, str):
        yield node
    else:
        for child in node if isinstance(node, list) else node.values():
            yield from nav_pages(child)


def commands(text):
    """Each ``ssl-lab ...`` of the code blocks, without comments."""
    for block in re.findall(r"^```(?:bash)?\n(.*?)^```|((?:^    .*\n)+)", text, re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\\\n", " ", "".join(block)).splitlines():
            if match := re.match(r"\s*(?:\S+/|srun |torchrun .*?--no-python )?ssl-lab (.*)", line):
                yield shlex.split(match[1], comments=True)


def is_placeholder(word):
    """An option in brackets, dots, or a group's choice left to the reader; values such as data.root=DIR compose."""
    key, _, value = word.partition("=")
    return "..." in word or word.startswith(("[", "|")) or (value.isupper() and "." not in key and key != "run")


@cache
def parser():
    return OverridesParser.create()


def first_of_sweep(word):
    override = parser().parse_override(word)
    if not override.is_sweep_override():
        return word
    swept = override.value()
    value = swept.start if isinstance(swept, IntervalSweep) else next(override.sweep_string_iterator())
    return f"{override.get_key_element()}={value}"


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    for name, code in own_files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    register_sweepers()


def test_every_page_is_in_the_navigation():
    nav = list(nav_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = {str(path.relative_to(ROOT / "docs")) for path in PAGES[1:]}
    assert pages == {name for name in nav if not name.startswith("api/")}
    assert len(nav) == len(set(nav))


@pytest.fixture(scope="module")
def reference():
    """The script that fills in the tables of the reference pages."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/site/reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_of_the_settings_has_a_meaning(reference):
    assert not reference.without_meaning(), "add a comment in conf/, or name the argument in its class's docstring"


def test_the_reference_shows_every_group_and_every_command(reference):
    marks = re.findall(r"<!-- (.*?) -->", "".join(page.read_text() for page in ROOT.glob("docs/reference/*.md")))
    groups = {str(path.parent.relative_to(config_dir())) for path in config_dir().rglob("*.yaml")} - {".", "local"}
    assert groups == {mark.partition(": ")[2] for mark in marks if ":" in mark}
    text = reference.fill("<!-- commands -->\n<!-- settings: optim -->\n<!-- metrics -->")
    assert all(f"`ssl-lab {name}`" in text for name in COMMANDS)
    assert "| `lr` | Peak learning rate. |" in text and "| `knn/top1_k#` |" in text
    assert reference.fill("`<!-- settings: optim -->`") == "`<!-- settings: optim -->`"


def test_meanings_come_from_docstrings_of_bases_and_from_comments(reference):
    rows = {key: (default, meaning) for key, default, meaning in reference.rows_of(config_dir() / "data/digits.yaml")}
    assert rows["batch_size"] == (256, "Samples per device and training step.")
    text = "Args:\n    a: First\n        half.\n    b (int): None or\n        ``2``. More.\n\nReturns:\n    c: x"
    told = reference.arguments(text)
    assert told == {"a": "First half.", "b": "`null` or `2`. More."}


@page
def test_links_lead_to_files(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        made = target.startswith(("http", "../api/"))  # the API's pages are made by the build, which checks them
        assert made or (path.parent / target).is_file(), target


@pytest.mark.parametrize("name", sorted(choices("method")))
def test_every_method_has_a_page_with_equation_paper_and_measurement(name):
    text = (ROOT / f"docs/methods/{name}.md").read_text()
    for part in ("$$", "ssl-lab pretrain", "## Measured\n"):
        assert part in text, part
    assert "https://arxiv.org/abs/" in text or name == "causal_lm"  # GPT's papers are not there
    assert f"methods/{name}.md" in (ROOT / "docs/methods.md").read_text()


@page
def test_commands_compose(path, own_folder):
    with initialize_config_dir(str(config_dir()), version_base="1.3"), trusting(everything=True):
        for name, *words in commands(path.read_text()):
            if name.startswith("-"):
                continue
            assert name in COMMANDS, name
            words, _ = split_off_trust([word for word in words if word not in FLAGS and not is_placeholder(word)])
            if name == "pretrain":
                words = [word for word in words if not word.startswith("run=")]
            if name not in NOT_COMPOSED:
                compose(name, [first_of_sweep(word) for word in words if not word.startswith(TEXTS)])


OWN = {
    "method": ["method=align_uniform", "encoder.widths=[8,16]"],
    "data": ["data=stripes", "data.num_train=256", "encoder.widths=[8,16]"],
    "encoder": ["encoder=patch_mixer", "encoder.depth=1"],
}


@pytest.mark.parametrize("kind", OWN)
def test_the_code_of_the_how_to_pages_trains(kind, own_folder):
    with trusting(OWN[kind]):
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            cfg = compose("pretrain", [*OWN[kind], "data.batch_size=32", "views@method.views=weak"])
        data = build_data(cfg.data, seed=0)
        method = build_method(cfg, data.spec)
    train(method, data, num_steps=2)
    assert torch.isfinite(method.last_loss) and method.last_loss != 0


def test_the_protocol_of_the_evaluation_page_describes_what_it_measures(own_folder):
    with trusting(["evaluation=centroid"]), initialize_config_dir(str(config_dir()), version_base="1.3"):
        (protocol,) = build_protocols(compose("pretrain", ["evaluation=centroid"]).evaluation, build_data)
    metrics = protocol.run(lambda batch: batch["image"].float().flatten(1), ArrayImages(), device=torch.device("cpu"))
    assert metrics["centroid/top1"] > 0.9 and list(metrics) == list(protocol.metrics)


def test_meanings_keep_values_as_written_and_defaults_are_never_empty_code(reference):
    rows = {key: meaning for key, _, meaning in reference.rows_of(config_dir() / "trainer/smoke.yaml")}
    assert rows["max_steps"].startswith("Optimizer steps"), "of trainer/default.yaml, not Lightning's"
    text = reference.keys("evaluate") + reference.keys("pretrain") + reference.settings("encoder")
    assert "metric.encoder=run:DIR" in text and "run:DIR of method=vq_vae." in text
    assert "Run:DIR" not in text and "| `` |" not in text and "hydra:runtime" not in text


def test_references_of_docstrings_are_a_list_with_links():
    pytest.importorskip("griffe")
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "docs/site/docstrings.py")
    docstrings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docstrings)
    given = "    Gao et al. (2021), of a\n        long title. arXiv:2104.08821\n    Mao et al. (2016).\n"
    link = "[arXiv:2104.08821](https://arxiv.org/abs/2104.08821)"
    items = f"- Gao et al. (2021), of a\n  long title. {link}\n- Mao et al. (2016)."
    assert docstrings.to_markdown(f"A loss.\n\nReferences:\n{given}") == f"A loss.\n\n**References:**\n\n{items}"
