"""``ssl-lab predict``: a fine-tuned run on files and texts of a user's, as tables, on the terminal and from Python."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from data.picture_files import write_classes, write_masked
from PIL import Image
from transformers import AutoTokenizer

from ssl_lab.cli.main import main
from ssl_lab.cli.using import predict
from ssl_lab.predict.outputs import columns_of

SMALL = ["trainer=cpu", "trainer.max_epochs=1", "optim.lr=1e-2"]
TEXTS = [f"{('free prize call now', 'see you at home')[k % 2]} {k}" for k in range(60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier of messages, one of pictures that was pretrained at another size, and one of pixels."""
    folder = tmp_path_factory.mktemp("predict")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for split in ("train", "test"):
            (folder / "sms").mkdir(exist_ok=True)
            with (folder / f"sms/{split}.csv").open("w", newline="") as file:
                rows = [(text, ("=spam", "ham")[k % 2]) for k, text in enumerate(TEXTS)]
                csv.writer(file).writerows([("message", "label"), *(rows if split == "train" else rows[::3])])
        data = ["data=hub_text", "data.path=sms", "data.text_column=message", "data.label_column=label"]
        size = ["encoder=bert_tiny", "data.vocab_size=90", "data.max_length=12", "data.batch_size=8"]
        assert main(["finetune", "run=null", *data, *size, *SMALL, "run_dir=texts"]) == 0
        write_classes(folder / "photos", size=(12, 9))
        convnet = ["encoder=convnet", "encoder.widths=[4,8]"]
        tiny = ["trainer=smoke", "trainer.max_steps=1", "data.batch_size=16", "evaluation=none"]
        own = ["data=image_folder", "data.root=photos", "data.channels=1"]
        assert main(["pretrain", "method=vae", *own, *convnet, *tiny, "data.image_size=8", "run_dir=vae"]) == 0
        photos = [*own, "task=image_classification", "data.image_size=9", "data.batch_size=4", "run_dir=photo_run"]
        assert main(["finetune", "run=vae", *photos, *SMALL, "data.test_fraction=0.4", "data.val_fraction=0.2"]) == 0
        write_masked(folder / "masked", size=(8, 8))
        masked = ["data=mask_folder", "data.root=masked", "data.batch_size=2", "task=semantic_segmentation"]
        assert main(["finetune", "run=null", *convnet, *masked, *SMALL, "run_dir=masks"]) == 0
        yield folder


def scores(folder, run):
    return json.loads((folder / run / "evaluation.json").read_text())["rows"][-1]["metrics"]


def test_a_table_of_messages_is_classified_as_the_evaluation_did(folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in (folder / "texts").rglob("*")}
    assert main(["predict", "run=texts/random/seed_0", "input=sms/test.csv", "out=found.csv"]) == 0
    assert "20 rows of TextClassification: found.csv" in capsys.readouterr().out
    with (folder / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ["path", "row", "text", "prediction", "probability"]
    assert [row["text"] for row in rows] == TEXTS[::3] and [int(row["row"]) for row in rows] == list(range(20))
    assert {row["prediction"] for row in rows} <= {"'=spam", "ham"}, "no formula of a spreadsheet"
    truth = [("'=spam", "ham")[k % 2] for k in range(60)][::3]
    accuracy = np.mean([row["prediction"] == label for row, label in zip(rows, truth, strict=True)])
    assert scores(folder, "texts/random/seed_0")["finetune/accuracy"] == pytest.approx(accuracy)
    assert main(["predict", "run=texts/random/seed_0", "input=sms/test.csv", "out=found.csv"]) == 0, "its own file"
    for out in ("found.jsonl", "found.parquet"):
        assert main(["predict", "run=texts/random/seed_0", "input=sms/test.csv", f"out={out}"]) == 0
    lines = [json.loads(line) for line in (folder / "found.jsonl").read_text().splitlines()]
    assert list(lines[0]["probabilities"]) == ["=spam", "ham"]
    assert pq.read_table(folder / "found.parquet")["prediction"].to_pylist() == [line["prediction"] for line in lines]
    assert {path: path.stat().st_mtime_ns for path in (folder / "texts").rglob("*")} == before, "the run stays as it is"
    rows = predict(folder / "texts/random/seed_0", TEXTS[::3])
    assert [row["prediction"] for row in rows] == [line["prediction"] for line in lines]
    assert predict(folder / "texts/random/seed_0", folder / "sms/test.csv")[3]["row"] == 3


def test_one_text_on_the_terminal_and_what_is_refused(folder, capsys):
    run = "run=texts/random/seed_0"
    assert main(["predict", run, "text=free prize [call]"]) == 0
    assert "free prize [call]" in capsys.readouterr().out
    assert main(["predict", "run=texts", "text=free prize [call]"]) == 0, "the folder of one training"
    assert "Run: texts/random/seed_0" in capsys.readouterr().out
    assert len(predict(folder / "texts", "free prize")) == 1
    for seed in (0, 1):
        shutil.copytree(folder / "texts/random/seed_0", folder / f"two/pretrained/seed_{seed}")
    shutil.copy(folder / "texts/finetune.json", folder / "two")
    (folder / "mine.csv").write_text("message,label\na,b\n")
    (folder / "blank.txt").write_text("\n \n")
    (folder / "odd.txt").write_text("hello\n\nyou\n")
    (folder / "numbers.csv").write_text("id,score\n1,2\n")
    (folder / "numbers.jsonl").write_text('{"id": 1}\n')
    for command, said in (
        ([run, "input=sms/test.csv", "out=mine.csv"], "did not write the file"),
        ([run, "input=blank.txt"], "Cannot read any of the 2 inputs"),
        ([run, "input=photos"], "none of the 20 files in it"),
        ([run, "input=numbers.csv"], "it has no column 'message', but id, score"),
        ([run, "input=numbers.jsonl", "columns={text: id}"], "holds Value('int64')"),
        ([run, "input=sms/test.csv", "columns={image: id}"], "a sample of this run consists of text"),
        ([run, "text=a", "question=b"], "one of this run consists of text"),
        (["run=two", "text=a"], "Give one of them as run=: two/pretrained/seed_0, two/pretrained/seed_1."),
        (["run=photo_run/pretrained/seed_0", "text=a"], "this run reads no texts"),
    ):
        assert main(["predict", *command]) == 1, command
        assert said in capsys.readouterr().err
    with pytest.warns(UserWarning, match=r"as they are blank: 1 \(odd.txt:1\)"):
        assert main(["predict", run, "input=odd.txt"]) == 0
    with pytest.raises(ValueError, match="Cannot read 1 of 2 inputs"):
        predict(folder / "texts/random/seed_0", ["hello", " "])


def test_pictures_are_seen_at_the_size_of_the_fine_tuning(folder, capsys):
    (folder / "photos/cat/note.md").write_text("x")
    assert main(["predict", "run=photo_run/pretrained/seed_0", "input=photos", "out=photos.jsonl"]) == 0
    assert "Files of other kinds that are left out: 1 (photos/cat/note.md)" in capsys.readouterr().out
    rows = [json.loads(line) for line in (folder / "photos.jsonl").read_text().splitlines()]
    assert [row["path"] for row in rows] == sorted(
        f"photos/{name}/{k}.png" for name in ("cat", "dog") for k in range(10)
    )
    pixels = [np.array(Image.open(row["path"])) for row in rows]
    again = predict(folder / "photo_run/pretrained/seed_0", pixels, batch_size=3)
    np.testing.assert_allclose([r["probability"] for r in again], [r["probability"] for r in rows], atol=1e-6)
    assert json.loads((folder / "photo_run/pretrained/seed_0/data_spec.json").read_text())["shape"] == [1, 9, 9]


def test_masks_lie_in_a_folder_beside_the_table(folder, capsys):
    command = ["predict", "run=masks/random/seed_0", "input=masked/images/test", "out=seen.csv"]
    assert main(command) == 0 and main(command) == 0, "its own masks are replaced"
    assert "Masks: seen_masks" in capsys.readouterr().out
    with (folder / "seen.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["mask"] for row in rows] == [f"seen_masks/{k}.png" for k in range(4)]
    with Image.open(folder / rows[0]["mask"]) as mask:
        assert mask.mode == "P" and mask.size == (8, 8)
        shares = np.bincount(np.array(mask).ravel(), minlength=3) / 64
    np.testing.assert_allclose(shares, [float(rows[0][f"shares.{k}"]) for k in range(3)])
    (folder / "seen_masks/notes.txt").write_text("mine")
    assert main(command) == 1
    assert "it holds other files than masks" in capsys.readouterr().err
    assert main(command[:-1]) == 0, "without masks on the terminal"


def test_exports_take_the_head_along_and_agree_on_real_texts_and_pictures(folder, capsys):
    run = "run=texts/random/seed_0"
    assert main(["export", run, "format=onnx", "out=onnx"]) == 0
    session = onnxruntime.InferenceSession(folder / "onnx/model.onnx", providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["=spam", "ham"]
    tokenizer = AutoTokenizer.from_pretrained(folder / "onnx")
    inputs = tokenizer(TEXTS[:5], padding=True, truncation=True, return_tensors="np")
    (scores,) = session.run(None, {name: inputs[name] for name in ("input_ids", "attention_mask")})
    shares = torch.tensor(scores).softmax(1)[:, 1].tolist()
    rows = predict(folder / "texts/random/seed_0", TEXTS[:5])
    np.testing.assert_allclose(shares, [row["probabilities"]["ham"] for row in rows], atol=1e-4)
    assert "with the head of its task" in (folder / "onnx/README.md").read_text()
    capsys.readouterr()
    assert main(["export", run, "format=hf", "out=hf", "head=true"]) == 1
    assert "fine-tune with method.head=bert" in capsys.readouterr().err
    assert main(["export", run, "format=hf", "out=hf"]) == 0
    assert "The head is left out: transformers' classifier of a bert" in capsys.readouterr().out
    assert main(["export", "run=vae", "format=onnx", "out=v", "head=true"]) == 1
    assert "VAE has none" in capsys.readouterr().err
    photos = "run=photo_run/pretrained/seed_0"
    assert main(["export", photos, "format=onnx", "out=photos_onnx"]) == 0
    assert json.loads((folder / "photos_onnx/config.json").read_text())["inputs"]["image"]["shape"] == [
        "batch",
        1,
        9,
        9,
    ]
    assert main(["export", photos, "format=onnx", "out=alone", "head=false"]) == 0
    assert json.loads((folder / "alone/config.json").read_text())["outputs"] == ["features"]


def test_help_begins_with_examples_and_refusals_load_no_torch(folder):
    code = (
        "import sys; from ssl_lab.cli.main import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'lightning', 'transformers'} & set(sys.modules); sys.exit(code)"
    )
    for args, number, said in (
        (["--help"], 0, "ssl-lab predict run=runs/finetune/DATE/pretrained/seed_0 input=photos out=classes.csv"),
        (["run=x"], 1, "needs input=FILE"),
        (["run=x", "input=sms", "out=x.txt"], 1, "ends in .csv"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, "predict", *args], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == number and said in done.stdout + done.stderr, done


def test_a_string_is_a_place_for_pictures_and_a_text_only_if_no_file_has_its_name(folder):
    run = "photo_run/pretrained/seed_0"
    assert [row["path"] for row in predict(run, "photos/cat")] == [f"photos/cat/{k}.png" for k in range(10)]
    assert predict(run, ["photos/cat", "photos/dog/1.png"])[-1]["path"] == "photos/dog/1.png"
    with pytest.raises(FileNotFoundError, match="Cannot read 'photoz': there is no such file or folder"):
        predict(run, "photoz")
    with pytest.raises(ValueError, match="'sms' is a text or the file or folder of that name"):
        predict("texts/random/seed_0", "sms")
    assert len(predict("texts/random/seed_0", ["sms"])) == 1


def test_names_that_are_no_utf8_are_written_out_in_every_format(folder):
    photos = os.fsencode(folder / "odd names")
    os.mkdir(photos)
    try:
        os.link(folder / "photos/cat/0.png", photos + b"/caf\xe9.png")
    except OSError:
        pytest.skip("the file system knows no such names")
    written = "odd names/caf\\xe9.png"
    for ending in ("csv", "jsonl", "parquet"):
        out = folder / f"odd.{ending}"
        assert main(["predict", "run=photo_run/pretrained/seed_0", "input=odd names", f"out={out}"]) == 0
        assert columns_of(out)[0] == "path"
        text = str(pq.read_table(out)["path"][0]) if ending == "parquet" else out.read_text()
        assert written in text.replace("\\\\", "\\")
