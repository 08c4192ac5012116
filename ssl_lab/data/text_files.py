"""Lines of text files as people have them: UTF-8, with or without a byte order mark, gzipped or not."""

from __future__ import annotations

import gzip
from pathlib import Path

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
        content = unpack(file) if file.suffix == ".gz" else file.read_bytes()
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"Cannot read {file} as UTF-8: line {line} has the byte 0x{content[error.start]:02x}. Convert the file: iconv -f "
            "LATIN1 -t UTF-8."
        ) from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"Cannot read {file}: it is no whole gzip file ({error}). Copy it again.") from error


def read_lines(file: Path) -> list[str]:
    r"""The lines of a text file without their ends (``\n`` or ``\r\n``, as ``wc -l`` counts them).

    Raises:
        ValueError: Naming the place, if it is not UTF-8 or a damaged gzip file.
    """
    lines = read_text(file).split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
