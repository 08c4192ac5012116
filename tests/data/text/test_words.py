import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ssl_lab.data.text.tokenizer import train_wordpiece
from ssl_lab.data.text.words import continuing_tokens

TEXTS = ["the unlabelled words, labelled words and wording\nof labels, unlabelling the sword"] * 4


def wrapped(tokenizer):
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<eos>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return wrapped(tokenizer)


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<pad>", "<eos>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return wrapped(tokenizer)


def wordpiece():
    return train_wordpiece(lambda: iter([TEXTS]), vocab_size=60)


@pytest.mark.parametrize("tokenizer", [byte_level(), unigram()])
def test_words_of_space_marked_tokens_are_what_spaces_separate(tokenizer):
    continues = set(continuing_tokens(tokenizer))
    text = "unlabelled words, wording of swords"
    words = []
    for i in tokenizer(text, add_special_tokens=False)["input_ids"]:
        piece = tokenizer.convert_ids_to_tokens(i).lstrip("Ġ▁")
        if words and i in continues:
            words[-1] += piece
        else:
            words.append(piece)
    assert words == text.split()
    assert not continues & set(tokenizer.all_special_ids)


def test_wordpiece_marks_what_continues():
    tokenizer = wordpiece()
    tokens = tokenizer.convert_ids_to_tokens(list(continuing_tokens(tokenizer)))
    assert tokens and all(token.startswith("##") for token in tokens)
    assert len(tokens) == sum(token.startswith("##") for token in tokenizer.get_vocab())


def test_characters_do_not_tell():
    vocab = {token: i for i, token in enumerate(["<pad>", "<eos>", *sorted(set(TEXTS[0]))])}
    for model in (models.WordLevel(vocab, unk_token="<pad>"), models.BPE(vocab={**vocab, "Ġ": len(vocab)}, merges=[])):
        assert continuing_tokens(wrapped(Tokenizer(model))) == ()
