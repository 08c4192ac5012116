"""Brown and 20 newsgroups as one corpus of documents: texts alone, without headers, quotes and encoded files.

    python benchmarks/corpus.py --data DIR --out DIR
    ssl-lab prepare 'data.path={train: DIR/train.jsonl, val: DIR/val.jsonl}' data.vocab_size=8192 out=SHARDS

The data folder holds brown/brown.train.txt.gz and 20newsgroups/20news-bydate.tar.xz as published. Documents are shuffled with
a fixed seed; the last 300 are for validation.
"""

import argparse
import gzip
import json
import random
import re
import tarfile
from pathlib import Path

QUOTE = re.compile(r"^\s*[>|:}#]|(writes|wrote|says):?\s*$")
RULE = re.compile(r"\n--+\s*\n")  # of dashes: behind the first one stand signatures, and in digests further texts
MIN_CHARACTERS = 80
MIN_SHARE_OF_WORDS = 0.7  # letters in lower case and spaces among the characters of a line


def brown(root):
    with gzip.open(root / "brown/brown.train.txt.gz", "rt", encoding="utf-8") as file:
        return [" ".join(document.split("\n")) for document in file.read().split("\n\n") if document.strip()]


def is_language(line):
    """Whether a line is not part of an encoded file, a drawing or a table."""
    return len(line) < 20 or sum(c.islower() or c == " " for c in line) >= MIN_SHARE_OF_WORDS * len(line)


def newsgroups(root):
    """The text that each author wrote, once where it was posted to several groups."""
    found = {}
    with tarfile.open(root / "20newsgroups/20news-bydate.tar.xz") as archive:
        for member in archive:
            if not member.isfile() or "20news" not in member.name:
                continue
            _, _, body = archive.extractfile(member).read().decode("latin-1").partition("\n\n")
            body = RULE.split(body)[0]
            lines = [line.strip() for line in body.split("\n") if not QUOTE.search(line) and is_language(line)]
            text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
            if len(text) >= MIN_CHARACTERS:
                found[text] = None
    return list(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    documents = [*brown(args.data), *newsgroups(args.data)]
    random.Random(0).shuffle(documents)
    args.out.mkdir(parents=True, exist_ok=True)
    for split, part in {"train": documents[:-300], "val": documents[-300:]}.items():
        with (args.out / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in part)
        print(f"{split}: {len(part):,} documents, {sum(map(len, part)) / 1e6:.1f} M characters")


if __name__ == "__main__":
    main()
