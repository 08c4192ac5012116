"""Pairs of texts and images with captions, from a table on the disk to the table of results."""

import json

import pytest
from data.picture_files import write_captioned, write_classes

from ssl_lab.cli.main import main

SMOKE = ["trainer=smoke", "data.batch_size=8", "data.vocab_size=200", "data.max_length=12"]


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def rows(path):
    return {row["name"]: row["metrics"] for row in json.loads(path.read_text())["rows"]}


def test_clip_retrieves_and_its_run_judges_other_images_by_the_names_of_their_classes(tmp_path, capsys):
    table = write_captioned(tmp_path / "squares", num=40)
    dual = [
        "encoder=dual",
        "encoder@encoder.image=convnet",
        "encoder@encoder.text=bert_tiny",
        "encoder.image.widths=[8]",
    ]
    data = ["data=image_text_pairs", f"data.path={table}", "data.image_size=8", "evaluation=retrieval"]
    assert main(["pretrain", "method=clip", *dual, *data, *SMOKE, "run_dir=run"]) == 0
    (metrics,) = rows(tmp_path / "run/evaluation.json").values()
    assert metrics["retrieval/text_to_image_r1_chance"] == 1 / 4
    assert 0 <= metrics["retrieval/image_to_text_r1"] <= metrics["retrieval/image_to_text_r5"] <= 1
    for name in ("similarities", "views"):
        assert any((tmp_path / "run/pictures" / name).iterdir())
    assert "Finding the caption of an image" in (tmp_path / "run/report.html").read_text()

    pets = ["data=image_folder", f"data.root={write_classes(tmp_path / 'pets')}"]
    zero_shot = ["evaluation=zero_shot", "evaluation.zero_shot.tokenizer=run/tokenizer"]
    assert main(["evaluate", "run=run", *pets, "data.channels=3", *zero_shot]) == 0
    (file,) = (tmp_path / "run").glob("evaluation_pets_*_test_*.json")
    (metrics,) = rows(file).values()
    assert 0 <= metrics["zero_shot/top1"] <= 1
    capsys.readouterr()
    assert main(["evaluate", "run=run", *pets, *zero_shot]) == 1
    assert "number of channels" in capsys.readouterr().err


def test_pairs_are_trained_on_and_scored_beside_the_baselines(tmp_path, capsys):
    lines = [f"a dog runs {i},the dog is running {i},{i % 6}" for i in range(40)]
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2,score\n" + "\n".join(lines) + "\n")
    data = ["data=text_pairs", "data.path=pairs.csv", "data.score_column=score", "evaluation=sts"]
    assert main(["pretrain", "method=simcse_supervised", "encoder=bert_tiny", *data, *SMOKE, "run_dir=run"]) == 0
    found = rows(tmp_path / "run/evaluation.json")
    assert list(found) == ["word counts", "random encoder", "SimCSESupervised encoder"]
    assert all(-1 <= metrics["sts/spearman"] <= 1 for metrics in found.values())
    capsys.readouterr()
    again = ["method=simcse_supervised", "encoder=bert_tiny", "data=python_docs", "evaluation=none", "trainer=smoke"]
    assert main(["pretrain", *again]) == 1
    assert "SimCSESupervised needs second_input_ids, but PythonDocs has ['input_ids']" in capsys.readouterr().err
    assert main(["pretrain", *again[1:], "method=simcse", "evaluation=sts"]) == 1
    assert "STS needs second_input_ids, score, but PythonDocs" in capsys.readouterr().err
