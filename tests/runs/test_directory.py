import json
from dataclasses import replace

import pytest
from omegaconf import OmegaConf
from ranks.fixed import IMAGES, TEXT

from ssl_lab.cli.trust.spec import read_spec
from ssl_lab.runs.directory import read_json, write_spec
from ssl_lab.runs.lock import lock_run

WORDS = tuple(i for i in range(5, 60_000) if i % 40)


@pytest.mark.parametrize(
    "spec", [IMAGES, TEXT, replace(TEXT, eos_id=3, continues_word=WORDS), replace(TEXT, continues_word=(7, 9, 10))]
)
def test_a_spec_comes_back_as_it_was(spec, tmp_path):
    write_spec(tmp_path, spec)
    assert read_spec(tmp_path, OmegaConf.create()) == spec


def test_many_ids_take_little_room_and_an_older_file_has_none(tmp_path):
    write_spec(tmp_path, replace(TEXT, continues_word=WORDS))
    path = tmp_path / "spec.json"
    assert path.stat().st_size < 30_000
    facts = json.loads(path.read_text())
    del facts["continues_word"], facts["eos_id"]
    path.write_text(json.dumps(facts))
    assert read_spec(tmp_path, OmegaConf.create()) == TEXT


@pytest.mark.parametrize("content", ["", '{"status": "runn', "[1]"])
def test_a_damaged_summary_is_named(content, tmp_path):
    assert read_json(tmp_path / "summary.json") == {}
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(ValueError, match=r"summary\.json cannot be read"):
        read_json(tmp_path / "summary.json")


def test_a_held_run_is_refused_though_its_heartbeat_is_damaged(tmp_path):
    lock = lock_run(tmp_path)
    (tmp_path / "heartbeat.json").write_text("{")
    with pytest.raises(ValueError, match="Another process trains in"):
        lock_run(tmp_path)
    lock.release()
