"""Each task predicts for given files and texts exactly what its evaluation judges; nothing of the training data is read."""

import csv
import json

import numpy as np
import pytest
import torch
from arrays import ArrayImages
from data.picture_files import write_classes, write_masked
from PIL import Image
from tasks.tiny import encoder, optim

from ssl_lab.data.image.image_folder import ImageFolder
from ssl_lab.data.image.mask_folder import MaskFolder
from ssl_lab.data.text.hub_text import HubText
from ssl_lab.data.text.parallel_text import ParallelText
from ssl_lab.data.text.question_answering import QuestionAnswering as Questions
from ssl_lab.data.text.text_pairs import TextPairs
from ssl_lab.data.text.token_labels import TokenLabels
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.evaluation.protocol import outputs_of
from ssl_lab.methods.simclr import SimCLR
from ssl_lab.predict.inputs import from_files, from_python
from ssl_lab.predict.running import embedding, predicting, run_on, task_of
from ssl_lab.tasks.classification import Classification
from ssl_lab.tasks.question_answering import Answers, QuestionAnswering
from ssl_lab.tasks.semantic_segmentation import SemanticSegmentation, over_picture
from ssl_lab.tasks.similarity import Similarity
from ssl_lab.tasks.text_classification import TextClassification
from ssl_lab.tasks.token_classification import TaggedSpans, TokenClassification
from ssl_lab.tasks.translation import Translation, Translations

CPU = torch.device("cpu")
WORDS = "the old cat saw a dog near our house and ran over green hills until dark night fell".split()


def sentence(k, length=6):
    return " ".join(WORDS[(k * 3 + j) % len(WORDS)] for j in range(length))


def write_csv(path, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def twice(folder, *rows):
    """The same rows to train and to test on."""
    return {split: write_csv(folder / f"{split}.csv", *rows) for split in ("train", "test")}


def found(given, data, method, compute=predicting):
    """Results for samples, and the samples that could not be read."""
    parts = list(run_on(given, data, method.encoder.spec, compute(method.eval(), CPU)))
    return [each for part in parts for each in part.results], [each for part in parts for each in part.unreadable]


def elsewhere(data, folder, kind=None, **settings):
    """Data of the same settings whose own files are gone, with the tokenizers of a run."""
    for name, tokenizer in data.artifacts().items():
        tokenizer.save_pretrained(str(folder / name))
    own = {name: str(folder / name) for name in data.artifacts()}
    return (kind or type(data))(path="nowhere.csv", max_length=data.max_length, **own, **settings)


def test_classes_of_texts(tmp_path):
    rows = [(sentence(k), ("ham", "spam")[k % 2]) for k in range(40)]
    path = twice(tmp_path, ("message", "label"), *rows)
    data = HubText(path=path, label_column="label", vocab_size=90, max_length=10, val_fraction=0)
    method = TextClassification(encoder(data.spec), optim())
    texts = [text for text, _ in rows]
    write_csv(tmp_path / "b.csv", ("id", "message"), *enumerate([*texts[:3], " ", *texts[3:]]))
    given, left_out = from_files([tmp_path / "b.csv"], elsewhere(data, tmp_path), {"text": "message"})
    found_rows, unreadable = found(given, elsewhere(data, tmp_path), method)
    (logits,) = outputs_of(lambda batch: (method.class_logits(batch),), data, "test", device=CPU)
    assert not left_out and [each.name for each in unreadable] == [f"{tmp_path}/b.csv:3"]
    names = ("ham", "spam")
    assert [row["prediction"] for row in found_rows] == [names[k] for k in logits.argmax(1).tolist()]
    shares = torch.tensor([list(row["probabilities"].values()) for row in found_rows])
    torch.testing.assert_close(shares, logits.softmax(1).detach())
    assert all(row["probability"] == max(row["probabilities"].values()) for row in found_rows)


def test_many_texts_are_read_a_part_at_a_time_in_their_order(tmp_path):
    path = write_csv(tmp_path / "a.csv", ("text", "label"), *[(sentence(k), k % 2) for k in range(40)])
    data = HubText(path=path, label_column="label", vocab_size=90, max_length=10, eval_batch_size=8)
    method = TextClassification(encoder(data.spec), optim())
    texts = [sentence(k, length=2 + k % 5) for k in range(600)]
    given = from_python(texts, data)
    whole, _ = found(given, data, method)
    data.eval_batch_size = 1000
    at_once, _ = found(given, data, method)
    assert len(whole) == 600
    assert [row["prediction"] for row in whole] == [row["prediction"] for row in at_once]
    np.testing.assert_allclose([row["probability"] for row in whole], [r["probability"] for r in at_once], atol=1e-6)


def test_similarity_of_pairs(tmp_path):
    rows = [(sentence(k), sentence(k + 1), k % 5) for k in range(40)]
    path = twice(tmp_path, ("sentence1", "sentence2", "score"), *rows)
    data = TextPairs(path=path, score_column="score", vocab_size=90, max_length=10, val_fraction=0)
    method = Similarity(encoder(data.spec), optim())
    given = from_python([(a, b) for a, b, _ in rows], elsewhere(data, tmp_path))
    found_rows, _ = found(given, elsewhere(data, tmp_path), method)
    (scores,) = outputs_of(lambda batch: (method.similarities(batch),), data, "test", device=CPU)
    np.testing.assert_allclose([row["similarity"] for row in found_rows], (5 * scores).tolist(), rtol=1e-5)
    with pytest.raises(ValueError, match="one of this run consists of text and second_text"):
        from_python(["alone"], data)


def test_tags_of_words_of_long_sentences_too(tmp_path):
    sentences = [sentence(k, 4 + 5 * (k % 4)).split() for k in range(24)]
    text = "\n\n".join("\n".join(f"{w} {('B-X', 'I-X', 'O')[j % 3]}" for j, w in enumerate(each)) for each in sentences)
    for name in ("train", "test"):
        (tmp_path / f"{name}.conll").write_text(f"{text}\n")
    data = TokenLabels(path=str(tmp_path), vocab_size=90, max_length=12, val_fraction=0)
    method = TokenClassification(encoder(data.spec), optim())
    data2 = elsewhere(data, tmp_path)
    (tmp_path / "new.txt").write_text("".join(f"{' '.join(words)}\n" for words, _ in data.sentences("test")))
    by_line, _ = found(from_files([tmp_path / "new.txt"], data2)[0], data2, method)
    by_column, _ = found(from_files([tmp_path / "test.conll"], data2)[0], data2, method)
    assert by_line == by_column
    assert [row["words"] for row in by_line] == [list(words) for words, _ in data.sentences("test")]
    tags = [tag for _, each in data.sentences("test") for tag in each]
    right = [a == b for a, b in zip([tag for row in by_line for tag in row["tags"]], tags, strict=True)]
    scores = TaggedSpans().run(method.capabilities()["tags"], data, device=CPU)
    assert scores["finetune/token_accuracy"] == pytest.approx(np.mean(right))


def test_answers_with_and_without_known_ones(tmp_path):
    contexts = [f"{sentence(k, 30)} number {k}" for k in range(6)]
    paragraphs = []
    for k, text in enumerate(contexts):
        answer = {"text": f"number {k}", "answer_start": text.index("number")}
        paragraphs.append(
            {"context": text, "qas": [{"id": f"{k}", "question": f"what number {k}", "answers": [answer]}]}
        )
    content = {"version": "1.1", "data": [{"paragraphs": [each]} for each in paragraphs]}
    for name in ("train", "test"):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    data = Questions(
        path=str(tmp_path), vocab_size=120, max_length=24, max_question_length=8, doc_stride=4, val_fraction=0
    )
    method = QuestionAnswering(encoder(data.spec), optim())
    data2 = elsewhere(data, tmp_path, max_question_length=8, doc_stride=4)
    with_answers, _ = found(from_files([tmp_path / "test.json"], data2)[0], data2, method)
    given = from_python([{"question": f"what number {k}", "text": text} for k, text in enumerate(contexts)], data2)
    without, _ = found(given, data2, method)
    assert with_answers == without and len(without) == 6
    assert all(row["answer"] in text for row, text in zip(without, contexts, strict=True))
    exact = np.mean([row["answer"] == f"number {k}" for k, row in enumerate(without)])
    assert Answers().run(method.capabilities()["answer_spans"], data, device=CPU)["finetune/exact_match"] == exact
    write_csv(
        tmp_path / "q.csv", ("question", "context"), *[(f"what number {k}", text) for k, text in enumerate(contexts)]
    )
    assert found(from_files([tmp_path / "q.csv"], data2)[0], data2, method)[0] == without


def test_translations(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.en").write_text("".join(f"{sentence(k)}\n" for k in range(12)))
        (tmp_path / f"{split}.de").write_text("".join(f"{sentence(k + 2)}\n" for k in range(12)))
    settings = {"source": "en", "target": "de", "target_max_length": 8}
    small = {"vocab_size": 90, "target_vocab_size": 300, "max_length": 10, "val_fraction": 0}
    data = ParallelText(path=str(tmp_path), **settings, **small)
    method = Translation(encoder(data.spec), optim(), num_decoder_layers=1)
    data2 = elsewhere(data, tmp_path, **settings)
    rows, _ = found(from_python([sentence(k) for k in range(12)], data2), data2, method)
    wanted = []
    real = data.target_tokenizer.batch_decode
    data.target_tokenizer.batch_decode = lambda ids, **settings: wanted.extend(real(ids, **settings)) or wanted
    Translations().run(method.capabilities()["translations"], data, device=CPU)
    assert [row["translation"] for row in rows] == [text.strip() for text in wanted]


def test_classes_of_pictures_of_any_size_kind_and_place(tmp_path):
    write_classes(tmp_path / "data", size=(12, 9))
    data = ImageFolder(root=str(tmp_path / "data"), image_size=8, channels=3, val_fraction=0, test_fraction=0)
    method = Classification(ConvNet(data.spec, widths=(4, 8)), optim())
    gone = ImageFolder(root="nowhere", image_size=8)
    (tmp_path / "data/cat/broken.png").write_bytes(b"no picture")
    (tmp_path / "data/notes.md").write_text("x")
    given, left_out = from_files([tmp_path / "data"], gone)
    rows, unreadable = found(given, gone, method)
    assert [file.name for file in left_out] == ["notes.md"] and [each.name[-10:] for each in unreadable] == [
        "broken.png"
    ]
    with pytest.warns(UserWarning, match="could not be read"):
        data = ImageFolder(root=str(tmp_path / "data"), image_size=8, channels=3, val_fraction=0, test_fraction=0)
        (logits,) = outputs_of(lambda batch: (method.class_logits(batch),), data, "train", device=CPU)
    assert [list(row["probabilities"].values()) for row in rows] == logits.softmax(1).tolist()
    assert set(rows[0]["probabilities"]) == {"cat", "dog"}
    files = [each.sample["image"] for each in given if "broken" not in each.name]
    pixels = [np.array(Image.open(file).convert("RGB")) for file in files]
    arrays = np.stack(pixels)
    of_files = (list(map(str, files)), files, [file.read_bytes() for file in files])
    of_pixels = (
        pixels,
        arrays,
        torch.tensor(arrays).permute(0, 3, 1, 2),
        arrays / 255,
        list(map(Image.fromarray, pixels)),
    )
    for inputs in (*of_files, *of_pixels):
        again, _ = found(from_python(inputs, gone), gone, method)
        np.testing.assert_allclose(
            [row["probability"] for row in again], [row["probability"] for row in rows], atol=1e-6
        )
    features, _ = found(from_python(files[0], gone), gone, method, embedding)
    assert features[0].shape == (8,)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((3, 4, 5, 6, 7)), "an array of shape"),
        (np.full((4, 4), 7.0), "floats from 7 to 7"),
        (np.zeros((4, 4), np.int64), "type int64"),
    ],
)
def test_pixels_of_no_picture_are_refused(pixels, words):
    data = ImageFolder(root="nowhere", image_size=8)
    method = Classification(ConvNet(ArrayImages().spec, widths=(4, 8)), optim())
    with pytest.raises(ValueError, match=words):
        found(from_python([pixels], data), data, method)


def test_masks_lie_over_the_picture(tmp_path):
    root = write_masked(tmp_path / "masked", size=(8, 8))
    data = MaskFolder(root=str(root), image_size=8)
    method = SemanticSegmentation(ConvNet(data.spec, widths=(4, 8)), optim())
    gone = MaskFolder(root="nowhere", image_size=8)
    rows, _ = found(from_files([root / "images/test"], gone)[0], gone, method)
    (masks,) = outputs_of(lambda batch: (method.masks(batch),), data, "test", device=CPU)
    assert np.array_equal(np.stack([row["mask"].pixels for row in rows]), masks.numpy())
    assert sum(rows[0]["shares"].values()) == pytest.approx(1)
    wide = Image.open(next((root / "images/test").iterdir())).resize((40, 16))
    (row,), _ = found(from_python(wide, gone), gone, method)
    assert row["mask"].pixels.shape == (16, 40)
    assert (row["mask"].pixels[:, :12] == 255).all() and (row["mask"].pixels[:, 12:28] < 3).all()


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (5, 9), (9, 5), (1, 1), (7, 300)])
def test_the_mask_of_the_centre(size):
    mask = np.arange(64, dtype=np.uint8).reshape(8, 8)
    whole = over_picture(mask, size)
    side = min(size)
    seen = np.argwhere(whole != 255)
    assert whole.shape == size and (whole != 255).sum() == side * side
    assert abs(seen[:, 0].min() - (size[0] - side) // 2) == abs(seen[:, 1].min() - (size[1] - side) // 2) == 0


def test_a_method_without_a_head_says_how_it_gets_one():
    method = object.__new__(SimCLR)
    with pytest.raises(ValueError, match="ssl-lab finetune run=runs/a data=NAME"):
        task_of(method, "runs/a")
    data = ArrayImages()
    with pytest.raises(ValueError, match="it says nothing of files or texts"):
        from_python(["a.png"], data)
