"""Lines of text files as people have them: UTF-8 or marked UTF-16, with or without a byte order mark, gzipped or not."""

from __future__ import annotations

import codecs
import gzip
import zlib
from pathlib import Path

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NUM_FIRST = 1 << 20


def read_text(file: Path) -> str:
    """The content of a text file; line ends stay as they are, a byte order mark is left out.

    Raises:
        ValueError: Naming the place, if it is neither UTF-8 nor marked UTF-16, or a damaged gzip file.
    """
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"Cannot read {file} as UTF-8: line {line} has the byte 0x{content[error.start]:02x}. Convert the file: iconv -f "
            "LATIN1 -t UTF-8."
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"Cannot read {file}: it is no whole gzip file ({error}). Copy it again.") from error
    if "\0" in text:
        raise _has_nul(file, text[: text.index("\0")].count("\n") + 1)
    return text


def check_text(file: Path) -> None:
    """Refuse a file that begins like none of text: another reader would take its NUL bytes for characters.

    Raises:
        ValueError: If there is a NUL byte among the first of a file without a mark of UTF-16.
    """
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            content = opened.read(_NUM_FIRST)
    except (OSError, EOFError, zlib.error):
        return  # whoever reads the whole file says so
    if b"\0" in content and not content.startswith(_UTF_16):
        raise _has_nul(file, content[: content.index(b"\0")].count(b"\n") + 1)


def _has_nul(file: Path, line: int) -> ValueError:
    return ValueError(
        f"Cannot read {file} as text: line {line} has a NUL byte. If it is UTF-16, convert it: iconv -f UTF-16LE -t UTF-8. "
        "If it is no text, name other files."
    )


def read_lines(file: Path) -> list[str]:
    r"""The lines of a text file without their ends (``\n`` or ``\r\n``, as ``wc -l`` counts them).

    A file without ``\n`` has lines that end with ``\r``.

    Raises:
        ValueError: Naming the place, if it is neither UTF-8 nor marked UTF-16, or a damaged gzip file.
    """
    text = read_text(file)
    lines = (text if "\n" in text else text.replace("\r", "\n")).split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
