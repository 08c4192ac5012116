"""Tokenizers: trained here on the data's own text, or loaded."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ssl_lab.data.text.tokenizer_check import check_loaded, check_tokenizer_files

PAD, UNK, CLS, SEP, MASK, EOS = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<|endoftext|>"
_SPECIAL = (PAD, UNK, CLS, SEP, MASK)
_INSIDE = "##"
_NUM_BYTES = 256

FRAMINGS = ("encoder", "causal")
"""``encoder``: class and separator tokens around each piece of text. ``causal``: an end-of-text token after each document."""

Read: TypeAlias = Callable[[], Iterable[list[str]]]
"""Starts a pass over the texts, lists of them at a time."""


def train_tokenizer(kind: str, read: Read, *, vocab_size: int, framing: str = "encoder") -> PreTrainedTokenizerFast:
    """Train a tokenizer; the same texts give the same ids in every process.

    Special tokens written out in the text (``[MASK]``) are read as plain characters. Padding, unknown, class, separator
    and mask tokens are there in each; with ``framing="causal"`` there is an end-of-text token too, and nothing is put
    around a text that is tokenised.

    Args:
        kind: ``wordpiece``, ``bpe``, ``unigram`` or ``characters``.
        read: Starts a pass over the texts; called twice by ``wordpiece``.
        vocab_size: Number of ids, special tokens included; fewer if the text has fewer pieces.
        framing: ``encoder`` or ``causal``.

    Raises:
        ValueError: If the kind is unknown, or ``vocab_size`` leaves no ids for characters.
    """
    if kind not in TOKENIZER_KINDS:
        raise ValueError(
            f"Cannot use tokenizer_kind={kind!r}. Set data.tokenizer_kind to one of {tuple(TOKENIZER_KINDS)}."
        )
    special_tokens = _SPECIAL if framing == "encoder" else (*_SPECIAL, EOS)
    return TOKENIZER_KINDS[kind](read, vocab_size=vocab_size, special_tokens=special_tokens)


def train_wordpiece(
    read: Read, *, vocab_size: int, special_tokens: tuple[str, ...] = _SPECIAL
) -> PreTrainedTokenizerFast:
    """Train a lower-cased WordPiece tokenizer as BERT's; the same texts give the same ids in every process.

    Special tokens written out in the text (``[MASK]``) are read as plain characters.

    Args:
        read: Starts a pass over the texts; called twice.
        vocab_size: Number of ids, special tokens included; fewer if the text has fewer pieces.
        special_tokens: The first ids.

    Raises:
        ValueError: If ``vocab_size`` leaves no ids for characters.

    References:
        Devlin et al., BERT (2018), section 3. arXiv:1810.04805
    """
    if vocab_size < 4 * len(special_tokens):
        raise ValueError(
            f"vocab_size={vocab_size} leaves no ids for words beside {len(special_tokens)} special tokens. Choose "
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
        special_tokens=[*special_tokens, *(_INSIDE + char for char in alphabet)],
        continuing_subword_prefix=_INSIDE,
        show_progress=False,
    )
    trained = Tokenizer(models.WordPiece(unk_token=UNK))
    trained.normalizer, trained.pre_tokenizer = normalizer, pre_tokenizer
    trained.train_from_iterator(_one_by_one(read), trainer)

    vocab = trained.get_vocab()
    tokenizer = Tokenizer(models.WordPiece(vocab=vocab, unk_token=UNK, continuing_subword_prefix=_INSIDE))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = decoders.WordPiece(prefix=_INSIDE)
    return _wrap(tokenizer, special_tokens)


def train_bpe(read: Read, *, vocab_size: int, special_tokens: tuple[str, ...] = _SPECIAL) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer as GPT-2's: any text can be written, and decoding gives it back to the byte.

    Args:
        read: Starts a pass over the texts.
        vocab_size: Number of ids, special tokens and the 256 bytes included; fewer if the text has fewer pieces.
        special_tokens: The first ids.

    Raises:
        ValueError: If ``vocab_size`` has no room for the bytes.

    References:
        Radford et al., Language Models are Unsupervised Multitask Learners (2019), section 2.2.
    """
    if vocab_size < len(special_tokens) + _NUM_BYTES:
        raise ValueError(
            f"vocab_size={vocab_size} leaves no ids for {_NUM_BYTES} bytes beside {len(special_tokens)} special tokens. "
            "Choose data.vocab_size of some thousands."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(special_tokens),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_one_by_one(read), trainer)
    return _wrap(tokenizer, special_tokens)


def train_unigram(
    read: Read, *, vocab_size: int, special_tokens: tuple[str, ...] = _SPECIAL
) -> PreTrainedTokenizerFast:
    """Train a Unigram tokenizer as SentencePiece's and T5's; text is normalised (NFKC) and white space is one space.

    Scores are rounded to three decimals, which makes the training repeatable.

    Args:
        read: Starts a pass over the texts.
        vocab_size: Number of ids, special tokens included; fewer if the text has fewer pieces.
        special_tokens: The unknown token is the first id, the others are the last.

    Raises:
        ValueError: If ``vocab_size`` is smaller than the number of characters of the text.

    References:
        Kudo, Subword Regularization (2018), section 3.2. arXiv:1804.10959
    """
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    trained = Tokenizer(models.Unigram())
    trained.normalizer, trained.pre_tokenizer = normalizer, pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=list(special_tokens), unk_token=UNK, show_progress=False
    )
    try:
        trained.train_from_iterator(_one_by_one(read), trainer)
    except Exception as error:  # the library raises no narrower one
        if "not large enough" not in str(error):
            raise
        raise ValueError(
            f"vocab_size={vocab_size} leaves no ids for all characters of the text beside {len(special_tokens)} special "
            "tokens. Raise data.vocab_size, or choose data.tokenizer_kind=bpe, which needs 256 bytes for any text."
        ) from error
    # The trainer walks through a randomised hash map: from process to process scores differ in their last digits. So do
    # those of characters that are pieces only to make all text readable, which follow the least likely piece upwards in
    # steps of 1e-4 in its order. Rounded, and these characters made equally likely, they are the same; the pieces are
    # anyway.
    scores = dict(json.loads(trained.to_str())["model"]["vocab"])
    scores = {piece: score for piece, score in scores.items() if piece not in special_tokens}
    floor = min(scores.values(), default=-1.0)
    readable = floor + 1e-4 * (1.5 + sum(len(piece) == 1 for piece in scores))
    pieces = [
        (piece, round(floor if len(piece) == 1 and score < readable else score, 3)) for piece, score in scores.items()
    ]
    pieces.sort(key=lambda item: (-item[1], item[0]))
    # Other special tokens are no pieces, and the unknown one too unlikely to be found where it is written in the text.
    vocab = [(UNK, round(10 * floor, 1)), *pieces]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=False))
    tokenizer.add_special_tokens([token for token in special_tokens if token != UNK])
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _wrap(tokenizer, special_tokens)


def train_characters(
    read: Read, *, vocab_size: int, special_tokens: tuple[str, ...] = _SPECIAL
) -> PreTrainedTokenizerFast:
    """A tokenizer with an id for every character of the texts, in the order of code points; others are unknown.

    Args:
        read: Starts a pass over the texts.
        vocab_size: The most ids there may be, special tokens included.
        special_tokens: The first ids.

    Raises:
        ValueError: If the text has more characters than ``vocab_size`` has room for.
    """
    characters: set[str] = set()
    for texts in read():
        characters.update(*texts)
    if len(special_tokens) + len(characters) > vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} leaves no ids for {len(characters)} characters beside {len(special_tokens)} special "
            "tokens. Raise data.vocab_size, or choose data.tokenizer_kind=bpe."
        )
    vocab = {token: i for i, token in enumerate((*special_tokens, *sorted(characters)))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token=UNK))  # without merges, a piece is a character
    tokenizer.decoder = decoders.Fuse()
    return _wrap(tokenizer, special_tokens)


TOKENIZER_KINDS: dict[str, Callable[..., PreTrainedTokenizerFast]] = {
    "wordpiece": train_wordpiece,
    "bpe": train_bpe,
    "unigram": train_unigram,
    "characters": train_characters,
}


def _one_by_one(read: Read) -> Iterator[str]:
    """Single texts: of lists, the library would gather 256 before it looks at any."""
    for texts in read():
        yield from texts


def _wrap(tokenizer: Tokenizer, special_tokens: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """The tokenizer with named special tokens, and with class and separator tokens around a text unless it is causal."""
    vocab, causal = tokenizer.get_vocab(), EOS in special_tokens
    if not causal:
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
        eos_token=EOS if causal else None,
        split_special_tokens=True,
    )


def with_frame(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer, set to add special tokens around a text and between two texts if it adds none by itself.

    As a causal one does not: class and separator tokens if it has both, as those that are trained here, or else its
    end-of-text token after each text, unless that is the padding.
    """
    if tokenizer.num_special_tokens_to_add() > 0:
        return tokenizer
    if tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None:
        begin, end = tokenizer.cls_token, tokenizer.sep_token
    elif tokenizer.eos_token_id not in (None, tokenizer.pad_token_id):
        begin, end = "", tokenizer.eos_token
    else:
        return tokenizer
    frame = processors.TemplateProcessing(
        single=f"{begin} $A {end}".strip(),
        pair=f"{begin} $A {end} $B:1 {end}:1".strip(),
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in (begin, end) if token],
    )
    backend = tokenizer.backend_tokenizer
    former = backend.post_processor
    backend.post_processor = frame if former is None else processors.Sequence([former, frame])
    return tokenizer


def plain_backend(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """A copy of the tokenizer's own implementation that neither cuts nor pads."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return backend


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """Short hash of how a tokenizer splits text, independent of its folder and of the special tokens it adds."""
    facts: dict[str, Any] = json.loads(plain_backend(tokenizer).to_str())
    del facts["post_processor"]
    facts["special_tokens"] = sorted(tokenizer.all_special_ids)
    facts["split_special_tokens"] = tokenizer.split_special_tokens
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


def load_tokenizer(name: str, *, framing: str = "encoder") -> PreTrainedTokenizerFast:
    """A saved tokenizer.

    Args:
        name: Folder written by ``save_pretrained``, or identifier on the Hugging Face hub.
        framing: With ``causal``, one without padding token, such as GPT-2's, pads with its end-of-text token.

    Raises:
        FileNotFoundError: If there is none, or the hub cannot be reached.
        ValueError: If short texts hang or crash it, or it has no fast implementation, no padding token, or for ``causal``
            no end-of-text token.
    """
    check_tokenizer_files(Path(name))
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except OSError as error:
        raise FileNotFoundError(
            f"Cannot load the tokenizer {name!r}: it is neither a folder written by save_pretrained nor delivered "
            f"by the Hugging Face hub: {error}. Set data.tokenizer to a local folder, or to null to train one."
        ) from error
    except Exception as error:  # what the library raises on damaged files has no narrower class
        raise ValueError(
            f"The tokenizer {name!r} cannot be read ({type(error).__name__}: {error}). Restore its files, or set "
            "data.tokenizer to another one."
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(
            f"The tokenizer {name!r} is a {type(tokenizer).__name__} without a fast implementation. Choose another, or "
            "null to train one."
        )
    check_loaded(tokenizer, name)
    if framing == "causal":
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"data.framing=causal ends each document with an end-of-text token, but the tokenizer {name!r} has none. "
                "Choose another, null to train one, or data.framing=encoder."
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"The tokenizer {name!r} has no padding token, which batches need. Give it one "
            "(tokenizer.add_special_tokens({'pad_token': '[PAD]'})), save it with save_pretrained and set "
            "data.tokenizer to that folder."
        )
    return tokenizer
