import base64
import io
import os

from PIL import Image
from report.fake_runs import SENTENCE, write_picture

from ssl_lab.report.pictures import NUM_EARLIER, galleries, readings


def decoded(shown):
    head, content = shown.address.split(",", 1)
    assert head == "data:image/png;base64"
    return base64.b64decode(content)


def test_the_last_picture_is_large_and_earlier_ones_are_spread_evenly(tmp_path):
    paths = {step: write_picture(tmp_path / f"step_{step:08d}.png", seed=step) for step in range(10, 210, 10)}
    (gallery,) = galleries({"views": paths}, {})
    assert gallery.title == "Views"
    assert gallery.last.step == 200
    assert decoded(gallery.last) == paths[200].read_bytes(), "a small picture is embedded as it is"
    steps = [shown.step for shown in gallery.earlier]
    assert len(steps) == NUM_EARLIER and steps[0] == 10 and steps == sorted(steps)


def test_noisy_large_pictures_are_shrunk_until_the_page_stays_small(tmp_path):
    pictures = {}
    for name in ("views", "samples", "reconstructions"):
        pictures[name] = {}
        for step in (1, 2):
            path = tmp_path / f"{name}_{step}.png"
            Image.frombytes("RGB", (700, 500), os.urandom(700 * 500 * 3)).save(path)
            pictures[name][step] = path
    found = galleries(pictures, {})
    assert [gallery.title for gallery in found] == ["Reconstructions", "Samples", "Views"]
    shown = [shown for gallery in found for shown in (gallery.last, *gallery.earlier)]
    assert sum(len(one.address) for one in shown) < 1_500_000
    for one in shown:
        assert Image.open(io.BytesIO(decoded(one))).size == (one.width, one.height)
    assert found[0].last.width > found[0].earlier[0].width


def test_unknown_names_come_last_under_their_own_name(tmp_path):
    path = write_picture(tmp_path / "step_00000001.png")
    titles = [gallery.title for gallery in galleries({"attention_maps": {1: path}, "views": {1: path}}, {})]
    assert titles == ["Views", "Attention maps"]


def test_sentences_read_as_prose():
    (reading,) = readings({"masked_sentences": {5: [SENTENCE[:4]], 10: [SENTENCE]}}, {})
    (words,) = reading.last.sentences
    assert (
        "".join(word.space + word.truth for word in words)
        == "the function returns a tuple (see below), and it doesn't fail."
    )
    assert (reading.last.step, reading.last.num_right, reading.last.num_hidden) == (10, 3, 5)
    assert [(word.guess, word.correct) for word in words if word.truth == "tuple"] == [("list", False)]
    assert [word.guess for word in words if word.truth == "turn"] == ["turn"]
    assert [prose.step for prose in reading.earlier] == [5]


def test_a_run_of_equal_signs_is_joined():
    tokens = [{"text": text, "guess": None, "correct": None} for text in ("very", "very", "_", "_", "*", "x")]
    (words,) = readings({"x": {1: [tokens]}}, {})[0].last.sentences
    assert "".join(word.space + word.truth for word in words) == "very very __ * x"


def test_a_hidden_special_token_and_a_guessed_piece_stay_visible():
    sentence = [
        {"text": "[SEP]", "guess": "dog", "correct": False},
        {"text": "cat", "guess": "##s", "correct": False},
    ]
    (words,) = readings({"x": {1: [sentence]}}, {})[0].last.sentences
    assert [(word.truth, word.guess) for word in words] == [("[SEP]", "dog"), ("cat", "-s")]
