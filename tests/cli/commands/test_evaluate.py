"""Several runs judged by one command."""

import json

import pytest

from ssl_lab.cli.main import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name, words in (("films", "it is a good film"), ("others", "quartz zebras jump over wild vixens")):
        lines = [f"{words} number {7 * k},{k % 2}" for k in range(60)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return tmp_path


def test_texts_that_each_run_reads_with_its_own_tokenizer_have_baselines_of_their_own(folder):
    for name in ("films", "others"):
        data = ["data=hub_text", f"data.path={name}.csv", "data.vocab_size=100", "data.max_length=16"]
        small = [
            "encoder=bert_tiny",
            "evaluation=none",
            "trainer=smoke",
            "data.batch_size=8",
            "trainer.accelerator=cpu",
        ]
        assert main(["pretrain", "method=mlm", *data, *small, f"run_dir={name}"]) == 0
    judged = ["data=hub_text", "data.path=films.csv", "data.label_column=label", "evaluation=label_free"]
    assert main(["evaluate", "run=[films,others]", *judged, "out=both"]) == 0
    assert main(["evaluate", "run=others", *judged, "out=alone.json"]) == 0
    (both,) = folder.glob("both/*others/*.json")
    rows, expected = (json.loads(path.read_text())["rows"] for path in (both, folder / "alone.json"))
    assert len(rows) == 3 and rows == expected
