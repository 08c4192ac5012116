"""The command that repeats a run names the choices that it made, which another machine might not make."""

import pytest
import yaml

from ssl_lab.runs.files import command_of


@pytest.mark.parametrize(
    ("overrides", "chosen", "words"),
    [
        (["data=digits"], ["optim.lr=0.002"], ["optim.lr=0.002", "data=digits", "adapt_to_data=false"]),
        (["data=digits"], None, ["data=digits", "adapt_to_data=false"]),
        (["experiment=simclr_digits"], None, ["experiment=simclr_digits"]),
        (["adapt_to_data=false", "run_dir=a"], None, ["adapt_to_data=false"]),
    ],
)
def test_command(overrides, chosen, words, tmp_path):
    (tmp_path / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    if chosen is not None:
        (tmp_path / "chosen.yaml").write_text(yaml.safe_dump([{"override": one, "reason": "x"} for one in chosen]))
    assert command_of(tmp_path, []) == ["ssl-lab", "pretrain", *words]
