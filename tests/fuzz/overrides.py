"""Random overrides: each set of them builds what it says, or is refused by one message for the user.

``python tests/fuzz/overrides.py [NUM] [SEED] [SECONDS]`` tries NUM sets, or what fits in the time, and prints what happened.
"""

import logging
import sys
import time
import traceback
import warnings
from collections import Counter
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import torch
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from ssl_lab.cli import build as config
from ssl_lab.cli.errors import explain
from ssl_lab.cli.paths import choices, config_dir
from ssl_lab.engine.judge import check_needs

GROUPS = ("data", "encoder", "method", "optim", "trainer", "evaluation", "callbacks", "views@method.views")
BUNDLED = ("digits", "python_docs", "shapes")
TOO_LARGE = ("base", "resnet50")
DEFAULTS = {"data": "digits", "encoder": "convnet", "optim": "adamw", "method": "simclr", "trainer": "default"}
VALUES = (
    "0", "1", "-1", "3", "1000000000000", "0.5", "-0.1", "1.5", "1e-9", "nan", "inf", "abc", "null", "true", "false", "-5",
    "[]", "[1]", "[2,2]", "[0.9,0.99]", "[abc]", "[[1]]", "{a: 1}", "${seed}", "cosine", "auto", "run:nowhere", "/nowhere",
    "2.0",
)  # fmt: skip
ODD_VALUES = (
    "''",
    "{}",
    "${nope}",
    "${oc.env:NOPE}",
    "'a b'",
    "a,b",
    "???",
    "\\'",
    '"x"',
    "1e400",
    "a b",
    "[1",
    "$x",
    "a:b",
)


class TimeIsUp(BaseException):
    """Not an error of what is tried."""


@cache
def keys(group, name):
    """Dotted settings of a group's file."""
    node = OmegaConf.load(config_dir() / group / f"{name}.yaml")
    assert isinstance(node, DictConfig)
    return [f"{group}.{key}" for key in _flat(OmegaConf.to_container(node)) if not key.startswith("defaults")]


def _flat(node):
    for key, value in node.items():
        yield str(key)
        if isinstance(value, dict):
            yield from (f"{key}.{rest}" for rest in _flat(value))


@st.composite
def override_sets(draw):
    """Choices of groups, values of their settings, misspelt ones, and strings of brackets and quotes."""
    chosen = dict(DEFAULTS)
    overrides = ["run_dir=x"]
    if draw(st.integers(0, 3)) == 0:
        overrides.append(f"experiment={draw(st.sampled_from([*experiments(), 'nope']))}")
    for group in draw(st.lists(st.sampled_from(GROUPS), max_size=3, unique=True)):
        names = sorted(choices(group.split("@")[0]))
        name = draw(st.sampled_from([*BUNDLED, *names] if group == "data" else names))
        chosen[group.split("@")[0]] = name
        overrides.append(f"{group}={name}")
    known = [key for group, name in chosen.items() for key in keys(group, name)] + ["seed", "objective", "compile"]
    for _ in range(draw(st.integers(0, 3))):
        key = draw(st.sampled_from(known))
        form = draw(st.integers(0, 9))
        if form == 7:
            place = draw(st.integers(0, len(key) - 1))
            key = key[:place] + draw(st.sampled_from(["", "x", "."])) + key[place + 1 :]
        value = draw(st.sampled_from(ODD_VALUES if draw(st.integers(0, 9)) == 7 else VALUES))
        mark = draw(st.sampled_from(["+", "++", "~"])) if draw(st.integers(0, 9)) == 7 else ""
        overrides.append(f"{mark}{key}={value}")
    if draw(st.integers(0, 9)) == 7:
        overrides.append(draw(st.text("ab1=[]{}'\"\\,:$ +~@/.\n", min_size=1, max_size=12)))
    return overrides


@cache
def experiments():
    """Those whose data is bundled."""
    return [name for name in choices("experiment") if name.endswith(BUNDLED)]


@cache
def _whole_data(text):
    return config.build_data(OmegaConf.create(text), seed=0)


def build(overrides):
    """What ``ssl-lab pretrain`` builds before it trains, as far as it is cheap; the last thing that it came to."""
    cfg = compose("pretrain", overrides)
    config.build_trainer(cfg, Path("x"), progress_bar=False)
    protocols = config.build_protocols(cfg.evaluation, partial(config.build_data, seed=cfg.seed))
    datamodule = config.build_data(cfg.data, seed=cfg.seed)
    bundled = type(datamodule).__name__ in ("Digits", "PythonDocs", "Shapes")
    if not bundled or any(size in str(cfg.encoder) for size in TOO_LARGE):
        return "composed, its parts built"
    if type(datamodule).__name__ == "PythonDocs":  # trains a tokenizer: once for the same settings
        datamodule = _whole_data(OmegaConf.to_yaml(cfg.data, resolve=True))
    check_needs(config.build_method(cfg, datamodule.spec), protocols, datamodule)
    return "built as a whole"


def try_overrides(overrides):
    """What became of a set of overrides.

    Raises:
        AssertionError: If the user would get a message that is none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return build(overrides)
    except Exception as error:
        message = explain(error)
        where = "".join(traceback.format_exception(error)[-4:])
        told = f"{overrides}\n{message}\n{where}"
        assert message.strip() and "bug in ssl_lab" not in message, told
        assert len(message) < 3000 and "Traceback" not in message, told
        return f"refused: {type(error).__name__}"


def no_numbers(tensor, *args, **kwargs):
    """In place of initial weights, which cost time and are not looked at."""
    return tensor


def run(num, seed, *, seconds=float("inf")):
    """Try ``num`` sets, or what fits in ``seconds``; the counts of what happened, and the messages that are none."""
    counts, wanting = Counter(), []
    end = time.monotonic() + seconds

    @seeded(seed)
    @settings(
        max_examples=num,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(override_sets())
    def once(overrides):
        if time.monotonic() > end:
            raise TimeIsUp
        try:
            counts[try_overrides(overrides)] += 1
        except AssertionError as error:
            counts["a message that is none"] += 1
            wanting.append(str(error))
            print(f"--- {error}\n", file=sys.stderr, flush=True)

    logging.disable(logging.WARNING)
    names = (
        "kaiming_uniform_",
        "kaiming_normal_",
        "normal_",
        "uniform_",
        "xavier_uniform_",
        "trunc_normal_",
        "orthogonal_",
    )
    patches = [patch.object(torch.nn.init, name, no_numbers) for name in names]
    try:
        for change in patches:
            change.start()
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            once()
    except TimeIsUp:
        pass
    finally:
        logging.disable(logging.NOTSET)
        for change in patches:
            change.stop()
    return counts, wanting


if __name__ == "__main__":
    num, seed = (int(word) for word in (sys.argv[1:3] + ["10000", "0"][len(sys.argv[1:3]) :]))
    start = time.monotonic()
    counts, _ = run(num, seed, seconds=float(sys.argv[3]) if len(sys.argv) > 3 else float("inf"))
    print(f"{sum(counts.values()):,} sets of overrides, seed {seed}, {time.monotonic() - start:.0f} s")
    for what, count in counts.most_common():
        print(f"{count:6,}  {what}")
