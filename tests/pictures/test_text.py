"""Sentences of any tokenizer are shown as words: tokens that continue one are marked."""

from types import SimpleNamespace

import pytest
import torch

from ssl_lab.data.text.tokenizer import train_tokenizer
from ssl_lab.data.text.words import continuing_tokens
from ssl_lab.pictures.render import sentences
from ssl_lab.types import MaskedText

TEXTS = ["the unlabelled words and the labelled words of unlabelled texts"] * 3


@pytest.mark.parametrize(("kind", "vocab_size"), [("wordpiece", 60), ("bpe", 290), ("unigram", 60)])
def test_words_can_be_put_together_again(kind, vocab_size):
    tokenizer = train_tokenizer(kind, lambda: iter([TEXTS]), vocab_size=vocab_size)
    spec = SimpleNamespace(
        pad_id=tokenizer.pad_token_id,
        continues_word=continuing_tokens(tokenizer),
        special_ids=tuple(tokenizer.all_special_ids),
    )
    ids = torch.tensor([tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]])
    guesses = torch.where(ids == ids[0, 1], len(tokenizer), ids)  # an id that the tokenizer has not
    picture = MaskedText(input_ids=ids, labels=ids, guesses=guesses)
    (line,) = sentences(picture, SimpleNamespace(tokenizer=tokenizer, spec=spec))
    words = " ".join(token["text"] for token in line).replace(" ##", "").removeprefix("##")
    assert words == TEXTS[0]
    assert [token["correct"] for token in line] == (guesses == ids)[0].tolist()
