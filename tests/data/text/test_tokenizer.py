import os
import subprocess
import sys
from pydoc_data.topics import topics

import pytest

from ssl_lab.data.text.hub_text import HubText
from ssl_lab.data.text.tokenizer import EOS, TOKENIZER_KINDS, load_tokenizer, tokenizer_digest, train_tokenizer

TEXTS = [topics[name] for name in sorted(topics)][:12]
WRITTEN = f"a [MASK] and [PAD] {EOS}"
KINDS = sorted(TOKENIZER_KINDS)
CODE = """
import sys
from pydoc_data.topics import topics
from ssl_lab.data.text.tokenizer import EOS, TOKENIZER_KINDS, tokenizer_digest, train_tokenizer
texts = [topics[name] for name in sorted(topics)][:12] + [f"a [MASK] and [PAD] {EOS}"]
for kind in sorted(TOKENIZER_KINDS):
    print(tokenizer_digest(train_tokenizer(kind, lambda: iter([texts]), vocab_size=600)))
"""


def train(kind, **settings):
    return train_tokenizer(kind, lambda: iter([TEXTS[:6], [*TEXTS[6:], WRITTEN]]), **{"vocab_size": 600, **settings})


def test_the_same_texts_give_the_same_ids_in_every_process():
    ours = [tokenizer_digest(train(kind)) for kind in KINDS]
    for seed, threads in [("7", "3")]:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
        command = [sys.executable, "-c", CODE]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.split() == ours


def test_unigram_with_ties_and_rare_characters_is_repeatable():
    texts = [chr(0x4E00 + i) + f" ab{chr(97 + i % 26)}{chr(97 + i % 17)}" for i in range(100)]
    first, *others = (train_tokenizer("unigram", lambda: iter([texts]), vocab_size=250) for _ in range(4))
    assert {tokenizer_digest(other) for other in others} == {tokenizer_digest(first)}


@pytest.mark.parametrize("framing", ["encoder", "causal"])
@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens(kind, framing, tmp_path):
    tokenizer = train(kind, framing=framing)
    ids = tokenizer(WRITTEN)["input_ids"]
    special = set(tokenizer.all_special_ids)
    assert len(special) == (5 if framing == "encoder" else 6)
    if framing == "encoder":
        assert tokenizer.eos_token is None
        assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        ids = ids[1:-1]
    else:
        assert tokenizer.eos_token == EOS
    assert not set(ids) & special, "what is written in the text is plain characters"
    assert tokenizer.decode(ids).replace(" ", "").lower() == WRITTEN.replace(" ", "").lower()
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path), framing=framing)
    assert again(WRITTEN)["input_ids"] == tokenizer(WRITTEN)["input_ids"]
    assert tokenizer_digest(again) == tokenizer_digest(tokenizer)


@pytest.mark.parametrize("kind", ["bpe", "characters"])
def test_text_comes_back_to_the_last_character(kind):
    tokenizer = train(kind)
    text = "def  f(x):\n\n  return 'X'  "
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    if kind == "bpe":
        assert tokenizer.decode(tokenizer("π 🙂", add_special_tokens=False)["input_ids"]) == "π 🙂"


def test_every_character_is_an_id():
    tokenizer = train("characters")
    characters = sorted(set("".join([*TEXTS, WRITTEN])))
    assert len(tokenizer) == 5 + len(characters)
    assert tokenizer("".join(characters), add_special_tokens=False)["input_ids"] == list(range(5, len(tokenizer)))
    assert tokenizer("π", add_special_tokens=False)["input_ids"] == [tokenizer.unk_token_id]


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_that_is_too_small(kind):
    with pytest.raises(ValueError, match=r"vocab_size=10 leaves no ids.*data\.vocab_size"):
        train(kind, vocab_size=10)


def test_unknown_kinds_and_framings():
    with pytest.raises(ValueError, match="Set data.tokenizer_kind to one of"):
        train("words")
    with pytest.raises(ValueError, match=r"Set data\.framing to one of"):
        HubText("x.txt", framing="prefix")


def test_causal_framing_needs_an_end_of_text_token(tmp_path):
    train("bpe").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has none"):
        load_tokenizer(str(tmp_path), framing="causal")


def test_a_causal_tokenizer_without_padding_pads_with_its_end(tmp_path):
    tokenizer = train("bpe", framing="causal")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "x.txt").write_text("a short text\n\nand another one\n\n" * 10)
    data = HubText(str(tmp_path / "x.txt"), tokenizer=str(tmp_path / "tokenizer"), framing="causal", max_length=24)
    batch = next(iter(data.eval_dataloader("train")))
    assert (batch["input_ids"][:, -1] == data.tokenizer.eos_token_id).all()
    lengths = batch["attention_mask"].sum(1)
    assert lengths.max() < 24
    ends = batch["input_ids"].gather(1, lengths[:, None] - 1)
    assert (ends == data.tokenizer.eos_token_id).all(), "the end of a text is no padding"
