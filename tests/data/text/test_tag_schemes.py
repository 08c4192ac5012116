import itertools
import random

import pytest

from ssl_lab.data.text.tag_schemes import to_iob2

SCHEMES = ("IOB1", "IOB2", "IOE2", "IOBES", "BILOU")
"""What seqeval reads too; of IOE1 it loses spans of one word that another follows."""
KINDS = ("PER", "LOC")


def spell(spans, length, scheme):
    """Tags of spans (first, last, kind), written down from the definition of each scheme."""
    tags = ["O"] * length
    for first, last, kind in spans:
        before = any(end == first - 1 and other == kind for _, end, other in spans)
        after = any(start == last + 1 and other == kind for start, _, other in spans)
        letters = ["I"] * (last - first + 1)
        if scheme == "IOB2" or (scheme == "IOB1" and before):
            letters[0] = "B"
        if scheme == "IOE2" or (scheme == "IOE1" and after):
            letters[-1] = "E"
        if scheme in ("IOBES", "BILOU", "BMES", "BMEWO"):
            end, single = {"IOBES": "ES", "BILOU": "LU", "BMES": "ES", "BMEWO": "EW"}[scheme]
            middle = "M" if "M" in scheme else "I"
            letters = ["B", *[middle] * (len(letters) - 2), end] if len(letters) > 1 else [single]
        tags[first : last + 1] = [f"{letter}-{kind}" for letter in letters]
    return tags


def random_sentences(seed, number=60):
    draw = random.Random(seed)
    for _ in range(number):
        spans, place, length = [], 0, draw.randint(1, 12)
        while place < length:
            last = min(length - 1, place + draw.randint(0, 3))
            if draw.random() < 0.6:
                spans.append((place, last, draw.choice(KINDS)))
            place = last + 1
        yield spans, length


@pytest.mark.filterwarnings("ignore:.*tags are rewritten as IOB2")
@pytest.mark.parametrize("scheme", [*SCHEMES, "IOE1", "BMES", "BMEWO"])
def test_every_scheme_gives_the_same_spans_as_iob2(scheme):
    sentences = list(random_sentences(0))
    written = [spell(spans, length, scheme) for spans, length in sentences]
    assert to_iob2(written) == [spell(spans, length, "IOB2") for spans, length in sentences]


@pytest.mark.parametrize("name", SCHEMES)
def test_seqeval_reads_the_same_spans(name):
    scheme = pytest.importorskip("seqeval.scheme", reason="seqeval is not installed")
    for spans, length in random_sentences(0):
        tokens = scheme.Tokens(spell(spans, length, name), getattr(scheme, name))
        assert {(e.start, e.end - 1, e.tag) for e in tokens.entities} == set(spans)


def test_other_spellings_of_the_same_tags():
    with pytest.warns(UserWarning, match="4 of 4 tags are rewritten as IOB2: the files mark spans by B, I"):
        assert to_iob2([["PER-B", "PER-I"], ["LOC_B", "LOC_I"]]) == [["B-PER", "I-PER"], ["B-LOC", "I-LOC"]]
    with pytest.warns(UserWarning, match="1 of 3 tags are rewritten as IOB2: the files mark spans by I"):
        assert to_iob2([["I-PER", "I-PER", "O"]]) == [["B-PER", "I-PER", "O"]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "tags",
    [
        [["DT", "NN"], ["PRP", "VBZ"]],  # parts of speech
        [["O", "O"]],
        [["B-NP", "I-NP", "O", "B-NP"]],
        [["B-NP", "X"], ["O"]],  # one tag of another form
        [["U-turn", "B-side", "E-mail", "S-bahn"]],  # letters of no scheme
    ],
)
def test_other_tags_and_valid_iob2_stay(tags):
    assert to_iob2(tags) == tags


def test_the_scheme_is_that_of_the_data_set():
    """One sentence alone would read as IOB2: only the others show that I- may begin a span."""
    sentences = [list(tags) for tags in itertools.chain([("B-PER", "I-PER")], [("I-PER", "B-PER", "O")] * 3)]
    with pytest.warns(UserWarning, match="3 of 11 tags"):
        assert to_iob2(sentences)[1] == ["B-PER", "B-PER", "O"]
