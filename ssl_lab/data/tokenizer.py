"""Tokenizers: trained here on the data's own text, or loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
_SPECIAL = (PAD, UNK, CLS, SEP, MASK)
_INSIDE = "##"


def train_wordpiece(read: Callable[[], Iterable[list[str]]], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a lower-cased WordPiece tokenizer as BERT's; the same texts give the same ids in every process.

    Special tokens written out in the text (``[MASK]``) are read as plain characters.

    Args:
        read: Starts a pass over the texts, lists of them at a time; called twice.
        vocab_size: Number of ids, special tokens included; fewer if the text has fewer pieces.

    Raises:
        ValueError: If ``vocab_size`` leaves no room for characters.

    References:
        Devlin et al., BERT (2018), section 3. arXiv:1810.04805
    """
    if vocab_size < 4 * len(_SPECIAL):
        raise ValueError(
            f"vocab_size={vocab_size} leaves no room for words beside {len(_SPECIAL)} special tokens. Choose "
            "data.vocab_size of some thousands."
        )
    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for texts in read():
        for text in texts:
            counts.update(normalizer.normalize_str(text))
    ranked = sorted((char for char in counts if not char.isspace()), key=lambda char: (-counts[char], char))
    alphabet = sorted(ranked[: vocab_size // 4])  # rare characters become unknown, the rest is left for words
    # The trainer numbers inner characters in the order of a randomised hash map and breaks ties of pairs by number.
    # Numbered beforehand, as special tokens, they make the training deterministic.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        special_tokens=[*_SPECIAL, *(_INSIDE + char for char in alphabet)],
        continuing_subword_prefix=_INSIDE,
        show_progress=False,
    )
    trained = Tokenizer(models.WordPiece(unk_token=UNK))
    trained.normalizer, trained.pre_tokenizer = normalizer, pre_tokenizer
    trained.train_from_iterator(read(), trainer)

    vocab = trained.get_vocab()
    tokenizer = Tokenizer(models.WordPiece(vocab=vocab, unk_token=UNK, continuing_subword_prefix=_INSIDE))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = decoders.WordPiece(prefix=_INSIDE)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(CLS, vocab[CLS]), (SEP, vocab[SEP])],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=MASK,
        split_special_tokens=True,
    )


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A saved tokenizer.

    Args:
        name: Folder written by ``save_pretrained``, or identifier on the Hugging Face hub.

    Raises:
        FileNotFoundError: If there is none, or the hub cannot be reached.
        ValueError: If it has no fast implementation or no padding token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except OSError as error:
        raise FileNotFoundError(
            f"The tokenizer {name!r} was asked for, but is neither a folder written by save_pretrained nor delivered "
            f"by the Hugging Face hub: {error}. Set data.tokenizer to a local folder, or to null to train one."
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(
            f"The tokenizer {name!r} is a {type(tokenizer).__name__} without a fast implementation. Choose another, or "
            "null to train one."
        )
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"The tokenizer {name!r} has no padding token, which batches need. Give it one "
            "(tokenizer.add_special_tokens({'pad_token': '[PAD]'})), save it with save_pretrained and set "
            "data.tokenizer to that folder."
        )
    return tokenizer
