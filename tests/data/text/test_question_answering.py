import gzip
import json

import pytest

from ssl_lab.data.text.question_answering import QuestionAnswering


def article(number, *, filler=0):
    context = (
        f"Town {number} lies by a river. " + "It is old and quiet. " * filler + f"Its mayor is Ms. Smith{number}, 40."
    )
    answers = [{"text": f"Ms. Smith{number}", "answer_start": context.index("Ms.")}, {"text": f"Smith{number}"}]
    qas = [
        {"id": f"{number}a", "question": f"Who is mayor of Town {number}?", "answers": answers},
        {
            "id": f"{number}b",
            "question": "Where does it lie?",
            "answers": [{"text": "by a river", "answer_start": context.index("by")}],
        },
    ]
    return {"title": str(number), "paragraphs": [{"context": context, "qas": qas}]}


@pytest.fixture
def file(tmp_path):
    with gzip.open(tmp_path / "train.json.gz", "wt") as stream:
        json.dump({"version": "1.1", "data": [article(k, filler=k % 3 * 5) for k in range(10)]}, stream)
    return str(tmp_path / "train.json.gz")


def data(file, **settings):
    return QuestionAnswering(
        file, **{"max_length": 40, "max_question_length": 10, "doc_stride": 8, "vocab_size": 300, **settings}
    )


def test_answers_map_back_to_the_text_and_each_is_whole_in_a_window(file):
    found = data(file)
    for split in ("train", "val", "test"):
        columns, numbers = found.columns(split), found.question_of_row(split).tolist()
        questions = found.questions(split)
        whole = set()
        for row, number in enumerate(numbers):
            start, end = int(columns["start_position"][row]), int(columns["end_position"][row])
            if start:
                assert found.text_of(split, row, start, end) == questions[number].answers[0]
                assert columns["context_mask"][row, start : end + 1].all()
                assert (columns["token_type_ids"][row, start : end + 1] == 1).all()
                whole.add(number)
        assert whole == set(range(len(questions)))
    assert len(found.columns("train")["input_ids"]) > len(found.questions("train")), "there are long texts"


def test_no_text_is_in_two_splits(file):
    found = data(file)
    towns = [{q.id[:-1] for q in found.questions(split)} for split in ("train", "val", "test")]
    assert sum(map(len, towns)) == len(set.union(*towns)) == 10


def test_long_questions_are_cut(file):
    found = data(file, max_question_length=3)
    mask, types = found.columns("train")["context_mask"], found.columns("train")["token_type_ids"]
    assert (mask.int().argmax(1) == 1 + 3 + 1).all()
    assert (types[mask] == 1).all()


def test_what_is_no_squad_file(tmp_path, file):
    (tmp_path / "a.json").write_text('{"data": [{"paragraphs": [{}]}]}')
    with pytest.raises(ValueError, match="a.json is not a SQuAD file: KeyError"):
        data(str(tmp_path / "a.json")).columns("train")
    content = {"data": [article(0)]}
    content["data"][0]["paragraphs"][0]["qas"][1]["answers"] = []
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="1 questions without an answer, such as 0b"):
        data(str(tmp_path / "a.json")).columns("train")
    with pytest.raises(ValueError, match="Raise data.max_length, or lower data.doc_stride"):
        data(file, doc_stride=30)


def test_answers_that_are_not_where_the_file_says_are_refused(tmp_path):
    """As in files that count bytes instead of characters."""
    articles = [article(k) for k in range(4)]
    for found in articles:
        found["paragraphs"][0]["context"] = "Él. " + found["paragraphs"][0]["context"]
    (tmp_path / "train.json").write_text(json.dumps({"data": articles}))
    with pytest.raises(ValueError, match="The answers of 8 of 8 questions of train, such as 0a, are not at their"):
        data(str(tmp_path / "train.json")).columns("train")


@pytest.mark.parametrize(
    ("start", "said"),
    [(-10, "are not at their answer_start"), ("7", "is not a SQuAD file"), (7.5, "is not a SQuAD file")],
)
def test_an_answer_start_that_counts_no_characters_is_refused(tmp_path, start, said):
    articles = [article(k) for k in range(10)]
    articles[3]["paragraphs"][0]["qas"][1]["answers"] = [{"text": "Smith3, 40", "answer_start": start}]
    (tmp_path / "x.json").write_text(json.dumps({"data": articles}))
    with pytest.raises(ValueError, match=said):
        data(str(tmp_path / "x.json")).columns("train")


def test_questions_with_the_id_of_another_are_counted(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"data": [article(k % 9) for k in range(10)]}))
    with pytest.warns(UserWarning, match="2 of 20 questions of train have the id of another; all are used"):
        data(str(tmp_path / "x.json")).columns("train")
