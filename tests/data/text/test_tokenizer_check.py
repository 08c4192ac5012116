"""Tokenizers of strangers: each ends with one message, in bounded time."""

import json

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerFast

from ssl_lab.data.text import tokenizer_check
from ssl_lab.data.text.tokenizer import load_tokenizer, train_tokenizer
from ssl_lab.data.text.tokenizer_check import check_loaded, check_tokenizer_files


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = train_tokenizer("wordpiece", lambda: [["a cat sat", "on the mat"] * 20], vocab_size=60)
    tokenizer.save_pretrained(folder)
    return folder


def changed(sound, folder, change):
    for file in sound.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    settings = json.loads((folder / "tokenizer.json").read_text())
    change(settings)
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    return folder


def set_id(number):
    return lambda settings: settings["model"]["vocab"].update({"cat": number})


def pattern(regex):
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return lambda settings: settings.update(pre_tokenizer=split)


def growing(settings):
    one = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}
    settings.update(normalizer={"type": "Sequence", "normalizers": [one] * 6})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_id(3_000_000_000), "a table of embeddings"),
        (set_id(-1), "ids from -1"),
        (lambda s: s["added_tokens"][0].update(id=4_000_000_000), "a table of embeddings"),
        (lambda s: s["post_processor"]["special_tokens"]["[CLS]"].update(ids=[4_000_000_000]), "a table of embeddings"),
        (pattern(r"((a+)+)+(?=\x00\x00)"), "fails on texts|takes more than"),
        (pattern(r"(?:foo|foofoo)+(?=\x00\x00)"), "fails on texts|takes more than"),
        (pattern(r"((ω|ω?)+ω+)+(?=\x00\x00)"), "fails on texts|takes more than"),
        (growing, "fails on texts|takes more than"),
    ],
)
def test_what_hangs_crashes_or_grows_is_refused(change, said, sound, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer_check, "_PATIENCE_SEC", 5)
    with pytest.raises(ValueError, match=said):
        load_tokenizer(str(changed(sound, tmp_path, change)))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("vocab.json", {"a": 0, "b": 3_000_000_000}, "2 tokens, but ids from 0 to 3,000,000,000"),
        ("vocab.json", {"en": {"a": 0, "b": -1}}, "ids from -1 to 0"),
        ("added_tokens.json", {"<x>": 10**30}, "a table of embeddings"),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"4000000000": {"content": "<x>"}}},
            "ids from 4,000,000,000",
        ),
        ("tokenizer_config.json", {"extra_ids": 3_000_000_000}, "a table of embeddings"),
    ],
)
def test_a_giant_id_beside_or_without_tokenizer_json_is_refused(name, content, said, sound, tmp_path):
    folder = changed(sound, tmp_path, lambda settings: None)
    (folder / name).write_text(json.dumps(content))
    for keep in (True, False):
        if not keep:
            (folder / "tokenizer.json").unlink()
        with pytest.raises(ValueError, match=said):
            load_tokenizer(str(folder))


@pytest.mark.parametrize("name", ["vocab.txt", "merges.txt", "spiece.model", "tokenizer_config.json"])
def test_files_larger_than_any_tokenizer_are_refused(name, sound, tmp_path):
    folder = changed(sound, tmp_path, lambda settings: None)
    with (folder / name).open("ab") as file:
        file.truncate(300 << 20)
    with pytest.raises(ValueError, match=f"{name} has 314,572,800 bytes, more than any tokenizer"):
        load_tokenizer(str(folder))


@pytest.mark.parametrize("change", [set_id(3_000_000_000), growing])
def test_files_that_stand_in_for_the_usual_one_are_tried_too(change, sound, tmp_path, monkeypatch):
    """``fast_tokenizer_files`` has transformers take another one, which nothing of the folder's own name shows."""
    monkeypatch.setattr(tokenizer_check, "_PATIENCE_SEC", 5)
    folder = changed(sound, tmp_path, change)
    (folder / "tokenizer.json").rename(folder / "tokenizer.4.0.0.json")
    (folder / "tokenizer.json").write_bytes((sound / "tokenizer.json").read_bytes())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["fast_tokenizer_files"] = ["tokenizer.4.0.0.json"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"tokenizer\.4\.0\.0\.json (has|fails|takes)"):
        load_tokenizer(str(folder))


def test_a_tokenizer_of_the_hub_is_tried_once_it_is_loaded(sound, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer_check, "_PATIENCE_SEC", 5)
    for change in (set_id(3_000_000), growing):  # transformers counts from 0 to the largest: minutes to three billion
        tokenizer = Tokenizer.from_file(str(changed(sound, tmp_path, change) / "tokenizer.json"))
        with pytest.raises(ValueError, match="someone/tokenizer (has|fails|takes)"):
            check_loaded(PreTrainedTokenizerFast(tokenizer_object=tokenizer), "someone/tokenizer")


def test_a_sound_tokenizer_is_taken_with_and_without_patterns(sound, tmp_path):
    check_tokenizer_files(sound)
    assert len(load_tokenizer(str(changed(sound, tmp_path, pattern(r"\s+"))))) == len(load_tokenizer(str(sound)))


@pytest.mark.parametrize(
    "setting", [{"max_len": 10**30}, {"sp_model_kwargs": {"nbest_size": -1}}, {"pad_token_label": -100}]
)
def test_numbers_of_its_settings_that_are_no_ids_are_taken(setting, sound, tmp_path):
    folder = changed(sound, tmp_path, lambda settings: None)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | setting))
    assert len(load_tokenizer(str(folder))) == len(load_tokenizer(str(sound)))


def test_a_tokenizer_with_code_is_not_run_and_nobody_is_asked(sound, tmp_path, monkeypatch):
    """``auto_map`` names a class in the folder; transformers would ask on the terminal."""
    folder = changed(sound, tmp_path, lambda settings: None)
    (folder / "evil.py").write_text("open('ran', 'w')\nclass T: pass\n")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {
        "auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]},
        "tokenizer_class": "T",
    }
    path.write_text(json.dumps(settings))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("asked"))
    try:
        load_tokenizer(str(folder))
    except ValueError as error:
        assert "cannot be read" in str(error)
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_of_special_tokens_alone_is_refused(tmp_path):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = Tokenizer(WordPiece({token: k for k, token in enumerate(special)}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no tokens but its 5 special ones"):
        load_tokenizer(str(tmp_path))
