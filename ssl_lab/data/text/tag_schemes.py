"""Schemes of word tags that mark spans: one scheme, IOB2, from the many that files are written in."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence

OUTSIDE = "O"
_SCHEMES = ("BI", "BIES", "BILU", "BMES", "BMEW", "IE", "I")
"""Letters of IOB1 and IOB2, BIOES, BILOU, BMES, BMEWO, IOE1 and IOE2, IO."""
_SINGLE, _LAST = "SUW", "EL"
_PREFIXED, _SUFFIXED = re.compile(r"([BIELMSUW])[-_](.+)"), re.compile(r"(.+)[-_]([BIELMSUW])")


def to_iob2(sentences: Iterable[Sequence[str]]) -> list[list[str]]:
    """Tags of all sentences of a data set in IOB2: ``B-NP`` begins a span, ``I-NP`` continues it, ``O`` is outside.

    A span begins at a word whose letter says so (B, S, U, W), whose kind is not that of the word before, or whose word
    before was the last of a span (E, L, S, U, W). This reads IOB1, IOB2, IOE1, IOE2, IO, BIOES, BILOU and BMES as
    conlleval does, and changes no tag of valid IOB2. The scheme is that of the data set, never of a sentence. Tags of
    which some are no such tags (parts of speech) stay as they are.

    Args:
        sentences: Tags of each sentence.

    References:
        Ramshaw and Marcus, Text Chunking using Transformation-Based Learning (1995). arXiv:cmp-lg/9505040
    """
    tags = [list(sentence) for sentence in sentences]
    kinds = {tag: _parse(tag, _PREFIXED) for sentence in tags for tag in sentence}
    if not _is_scheme(kinds):
        kinds = {tag: found[::-1] if (found := _parse(tag, _SUFFIXED)) else None for tag in kinds}
        if not _is_scheme(kinds):
            return tags
    spelled = [_begin([kinds[tag] for tag in sentence]) for sentence in tags]
    changed = sum(a != b for old, new in zip(tags, spelled, strict=True) for a, b in zip(old, new, strict=True))
    if changed:
        letters = "".join(sorted({found[0] for found in kinds.values() if found and found[0]}))
        warnings.warn(
            f"{changed} of {sum(map(len, tags))} tags are rewritten as IOB2: the files mark spans by {', '.join(letters)}. "
            "Scores count the same spans.",
            stacklevel=2,
        )
    return spelled


def is_iob2(tag: str) -> bool:
    """Return whether a tag marks spans in IOB2."""
    return tag == OUTSIDE or tag[:2] in ("B-", "I-")


def _parse(tag: str, pattern: re.Pattern[str]) -> tuple[str, str] | None:
    """Both parts of a tag, empty if it is outside of all spans; None if it is of another form."""
    if tag == OUTSIDE:
        return "", ""
    found = pattern.fullmatch(tag)
    return (found[1], found[2]) if found else None


def _is_scheme(kinds: dict[str, tuple[str, str] | None]) -> bool:
    letters = {found[0] for found in kinds.values() if found} - {""}
    whole = all(found is not None for found in kinds.values())
    return whole and bool(letters) and any(letters <= set(scheme) for scheme in _SCHEMES)


def _begin(parsed: Sequence[tuple[str, str] | None]) -> list[str]:
    spelled, before = [], ("", "")
    for found in parsed:
        assert found is not None
        letter, kind = found
        if not kind:
            spelled.append(OUTSIDE)
        else:
            begins = letter in "B" + _SINGLE or kind != before[1] or before[0] in tuple(_LAST + _SINGLE)
            spelled.append(f"{'B' if begins else 'I'}-{kind}")
        before = found
    return spelled
