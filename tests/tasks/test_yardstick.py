"""A linear classifier on raw input, beside fine-tuned encoders."""

import csv

import pytest

from ssl_lab.data.image.digits import Digits
from ssl_lab.data.text.hub_text import HubText
from ssl_lab.tasks.yardstick import score_raw_input


def texts(tmp_path, monkeypatch, rows):
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "cache"))
    with (tmp_path / "films.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return HubText(str(tmp_path / "films.csv"), label_column="label", vocab_size=120, max_length=16)


def test_a_word_that_tells_the_class_is_found(tmp_path, monkeypatch):
    rows = [(f"it is a {('good', 'bad')[k % 2]} film number {k}", ("pos", "neg")[k % 2]) for k in range(80)]
    found = score_raw_input(texts(tmp_path, monkeypatch, rows))
    assert found["name"] == "word counts + linear"
    assert found["metrics"] == pytest.approx(
        dict.fromkeys(("finetune/accuracy", "finetune/macro_f1", "finetune/recall"), 1)
    )


def test_the_order_of_words_says_nothing(tmp_path, monkeypatch):
    rows = [(("dog bites man", "man bites dog")[k % 2], ("usual", "news")[k % 2]) for k in range(80)]
    found = score_raw_input(texts(tmp_path, monkeypatch, rows))
    assert found["metrics"]["finetune/accuracy"] <= 0.8


def test_pixels_of_digits():
    found = score_raw_input(Digits())
    assert found["name"] == "raw pixels + linear" and found["metrics"]["finetune/accuracy"] > 0.9


def test_data_without_labels_have_none(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree\n\n" * 10)
    assert score_raw_input(HubText(str(tmp_path / "a.txt"), vocab_size=120, max_length=16)) is None
