"""Parameters sharded over two ranks: losses and weights of one process after three steps, or refused with the reason."""

from pathlib import Path

import pytest
import torch
from forked import on_ranks
from ranks import sharded_steps

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
CASES = sorted(path.stem for path in (HERE / "cases").glob("*.py"))
REFUSED = {
    "gan": "it steps its optimizers itself",
    "gan_batch_norm": "it steps its optimizers itself",
    "clip": "is a single number",
    "image_gpt": "outside of the block's own pass",
}
SETTINGS = ("mlm:accumulate", "mlm:clip", "mlm:recompute", "mae:adamw", "mae:lars", "mae:recompute")
RESUMED = ("mlm:resume", "mae:resume")
HALF = ("mlm:bf16", "mlm:bf16_ddp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    for world in (1, 2):
        asked = [*CASES, *SETTINGS, *HALF, *(RESUMED if world == 2 else ())]
        on_ranks(world, sharded_steps.main, folder, *asked)
    return folder


def flat(tree):
    """Names and tensors of nested dictionaries."""
    for key, value in tree.items():
        yield from (
            ((f"{key}.{name}", leaf) for name, leaf in flat(value)) if isinstance(value, dict) else [(key, value)]
        )


def results(folder, name):
    return [torch.load(folder / f"{name}_{world}.pt", weights_only=True) for world in (1, 2)]


def check_equal(found, expected, *, losses=True):
    if losses:
        torch.testing.assert_close(found["losses"], expected["losses"], rtol=1e-5, atol=1e-7)
    assert found["state"].keys() == expected["state"].keys()
    for key, value in expected["state"].items():
        torch.testing.assert_close(found["state"][key], value, rtol=1e-5, atol=1e-7, msg=key)
    assert found["own"] < 0.6 * expected["own"]


@pytest.mark.parametrize("name", [*(name for name in CASES if name not in REFUSED), *SETTINGS])
def test_shards_train_like_the_whole(name, folder):
    alone, sharded = results(folder, name)
    check_equal(sharded, alone, losses=not name.endswith("accumulate"))  # of parts that hold other rows


def test_half_precision_is_that_of_ddp(folder):
    sharded, ddp = (results(folder, name)[1] for name in HALF)
    check_equal(sharded, ddp)


@pytest.mark.parametrize("name", RESUMED)
def test_going_on_is_the_same_to_the_last_bit(name, folder):
    found = torch.load(folder / f"{name}_2.pt", weights_only=True)
    for whole, resumed in zip(found["whole"][:2], found["resumed"][:2], strict=True):
        whole, resumed = dict(flat(whole)), dict(flat(resumed))
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(resumed[key], value) for key, value in whole.items())
    assert found["whole"][2] == found["resumed"][2] == 6


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_go_wrong_is_refused_with_the_reason(name, folder):
    assert REFUSED[name] in results(folder, name)[1]["refused"]
