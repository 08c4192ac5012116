"""Lines of text files as people have them: UTF-8, with or without a byte order mark, gzipped or not."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

from ssl_lab.data.store import remembered, status_of

_ALWAYS_TAKEN = 256 << 20
_MOST_TIMES = 100  # the bytes of the packed file; text has 3 to 20 times as many


def unpack(file: Path) -> bytes:
    """The content of a gzip file.

    Raises:
        EOFError: If its end is missing.
        gzip.BadGzipFile: If it is none, or damaged.
        ValueError: If it unpacks to so much that it is no data but a trap.
    """
    limit = max(_ALWAYS_TAKEN, _MOST_TIMES * file.stat().st_size)
    with gzip.open(file) as packed:
        content = packed.read(limit + 1)
    if len(content) > limit:
        raise ValueError(
            f"Cannot read {file}: it unpacks to more than {limit:,} bytes, over {_MOST_TIMES} times its own. Unpack it "
            "yourself if you know what it holds."
        )
    return content


def read_text(file: Path) -> str:
    """The content of a text file; line ends stay as they are, a byte order mark is left out.

    Raises:
        ValueError: Naming the place, if it is not UTF-8 or a damaged gzip file.
    """
    try:
        content = unpack(file) if file.suffix.lower() == ".gz" else file.read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"Cannot read {file} as UTF-8: line {line} has the byte 0x{content[error.start]:02x}. Convert the file: iconv -f "
            "LATIN1 -t UTF-8."
        ) from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"Cannot read {file}: it is not a complete gzip file ({error}). Copy it again.") from error
    if "\0" in text:
        raise _binary(file, text.count("\n", 0, text.index("\0")) + 1)
    return text


def check_texts(files: Sequence[Path]) -> None:
    """Look through files that are to hold text as UTF-8.

    Raises:
        ValueError: Naming the line, if one has a NUL byte, as UTF-16 and binary files have: UTF-8 allows it.
    """

    def look() -> None:
        for file in files:
            _check_text(file)

    facts, num_bytes = status_of(files)
    remembered("texts-1", facts, look, num_bytes=num_bytes)


def _check_text(file: Path) -> None:
    line = 1
    with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as content:
        try:
            while block := content.read(1 << 20):
                if b"\0" in block:
                    line += block.count(b"\n", 0, block.index(b"\0"))
                    raise _binary(file, line, ", or name its encoding: data.options={encoding: utf-16}")
                line += block.count(b"\n")
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"Cannot read {file}: it is not a complete gzip file ({error}). Copy it again.") from error


def _binary(file: Path, line: int, other_remedy: str = "") -> ValueError:
    return ValueError(
        f"Cannot read {file} as text: line {line:,} has a NUL byte, so it is UTF-16 or not text. Convert the file: iconv -f "
        f"UTF-16 -t UTF-8{other_remedy}."
    )


def read_lines(file: Path) -> list[str]:
    r"""The lines of a text file without their ends: ``\n`` or ``\r\n``, as ``wc -l`` counts them, or ``\r`` alone in all.

    Raises:
        ValueError: Naming the place, if it is not UTF-8 or a damaged gzip file.
    """
    text = read_text(file)
    lines = text.split("\n" if "\n" in text else "\r")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
