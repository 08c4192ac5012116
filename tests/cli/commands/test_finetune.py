"""A run's encoder carried to a task: seeds, the random baseline, going on, and what is refused."""

import csv
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys

import pytest
import torch
from data.picture_files import write_masked
from PIL import Image

from ssl_lab.cli.build import judged_checkpoint
from ssl_lab.cli.commands import finetune
from ssl_lab.cli.main import main
from ssl_lab.engine.callbacks.evaluation import EvaluateDuringTraining
from ssl_lab.engine.checkpoints.checkpoint import read_checkpoint
from ssl_lab.metrics import descriptions
from ssl_lab.runs.lock import lock_run
from ssl_lab.tasks.classification import Classification
from ssl_lab.tasks.metrics import CLASSES_METRICS
from ssl_lab.tasks.text_classification import TextClassification

SMALL = ["trainer.accelerator=cpu", "data.batch_size=8", "data.max_length=16", "optim.lr=1e-3"]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A pretraining run, and sentences whose class is a word."""
    folder = tmp_path_factory.mktemp("finetune")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_LAB_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        rows = [(f"it is a {('good', 'bad')[k % 2]} film number {k}", ("pos", "neg")[k % 2]) for k in range(80)]
        with (folder / "films.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
        data = ["data=hub_text", "data.path=films.csv", "data.vocab_size=120", "data.max_length=16"]
        small = ["encoder=bert_tiny", "evaluation=none", "trainer=smoke", "data.batch_size=8"]
        assert main(["pretrain", "method=mlm", *data, *small, "run_dir=run"]) == 0
        yield folder


DATA = ["data=hub_text", "data.path=films.csv", "data.label_column=label"]
TWO = ["finetune", "run=run", *DATA, *SMALL, "trainer.max_epochs=2", "seeds=[0,1]", "baseline=true"]


def test_seeds_and_baseline_in_one_table_and_finished_trainings_are_kept(folder, capsys):
    assert main([*TWO, "run_dir=two"]) == 0
    printed = capsys.readouterr().out
    assert "test split, last checkpoint, mean ± standard deviation over seeds 0, 1" in printed
    starts = [
        json.loads((folder / f"two/{start}/seed_0/summary.json").read_text()) for start in ("pretrained", "random")
    ]
    assert [summary["pretraining"] for summary in starts] == ["MLM", None]
    for name in ("pretrained weights", "random weights", "accuracy", "macro F1"):
        assert name in printed
    table = json.loads((folder / "two/finetune.json").read_text())
    names = ["pretrained weights", "random weights", "word counts + linear"]
    assert [row["name"] for row in table["rows"]] == names and table["rows"][2]["metrics"]["finetune/accuracy"] == 1.0
    found = [t["metrics"]["test/finetune/accuracy"] for t in table["trainings"] if t["start"] == "pretrained"]
    assert len(found) == 2
    metrics = table["rows"][0]["metrics"]
    assert metrics["finetune/accuracy"] == pytest.approx(statistics.mean(found))
    assert metrics["finetune/accuracy_std"] == pytest.approx(statistics.stdev(found))
    assert statistics.mean(found) > 0.6
    cell = folder / "two/pretrained/seed_1"
    for file in ("config.yaml", "metrics.csv", "report.html", "checkpoints/last.ckpt", "tokenizer/tokenizer.json"):
        assert (cell / file).is_file(), file
    with (cell / "metrics.csv").open() as file:
        assert "eval/finetune/accuracy" in next(csv.reader(file))

    times = {path: path.stat().st_mtime_ns for path in folder.glob("two/*/*/checkpoints/last.ckpt")}
    assert len(times) == 4
    (folder / "two/random/seed_1/summary.json").unlink()
    assert main([*TWO, "run_dir=two", "ckpt=last"]) == 0
    again = json.loads((folder / "two/finetune.json").read_text())
    assert again["rows"] == table["rows"], "the repeated training ends as it had"
    kept = {path for path, time in times.items() if path.stat().st_mtime_ns == time}
    assert {path.parents[1].name for path in times.keys() - kept} <= {"seed_1"}
    assert len(kept) >= 3
    capsys.readouterr()
    assert main([*TWO, "run_dir=two", "ckpt=last", "optim.lr=1e-4"]) == 1
    assert "holds a training with other settings (optim)" in capsys.readouterr().err


def test_training_anew_replaces_a_training_once_it_works_and_keeps_it(folder, monkeypatch):
    command = ["finetune", "run=run", *DATA, *SMALL, "trainer.max_steps=2", "run_dir=anew"]
    assert main(command) == 0
    cell = folder / "anew/pretrained/seed_0"

    def state(place):
        names = ("config.yaml", "evaluation.json", "metrics.csv", "checkpoints/last.ckpt")
        return {name: (place / name).read_bytes() for name in names}

    first = state(cell)
    with monkeypatch.context() as patch:
        patch.setattr(TextClassification, "training_step", lambda *args: (_ for _ in ()).throw(MemoryError("full")))
        assert main([*command, "ckpt=null", "optim.lr=2e-3"]) == 1
    assert state(cell) == first and not (cell / "replaced").exists()
    for number, lr in ((1, "2e-3"), (2, "3e-3")):
        assert main([*command, "ckpt=null", f"optim.lr={lr}"]) == 0
        assert (state(cell / "replaced/1") == first) and f"lr: {float(lr)}" in (cell / "config.yaml").read_text()
        assert sorted(path.name for path in (cell / "replaced").iterdir()) == [str(k + 1) for k in range(number)]
        assert sorted(path.name for path in (cell / "checkpoints").glob("*.ckpt")) == ["last.ckpt"]


def test_training_anew_keeps_the_best_checkpoint_of_the_one_before(folder):
    command = ["finetune", "run=run", *DATA, *SMALL, "trainer.max_epochs=2", "select=best", "run_dir=better"]
    assert main(command) == 0
    cell = folder / "better/pretrained/seed_0"
    best = (cell / "checkpoints/best.ckpt").read_bytes()
    assert main([*command, "ckpt=null", "optim.lr=2e-3"]) == 0
    assert (cell / "replaced/1/checkpoints/best.ckpt").read_bytes() == best


def test_settings_of_data_without_data_are_refused(folder, capsys):
    assert main(["finetune", "run=run", "+data.batch_size=4", "run_dir=none"]) == 1
    assert "Cannot set data.batch_size: no data is chosen. Add data=NAME" in capsys.readouterr().err


def test_starts_from_the_runs_weights_and_judges_again(folder, capsys):
    command = ["finetune", "run=run", *DATA, *SMALL, "method.freeze=encoder", "trainer.max_epochs=1", "run_dir=frozen"]
    assert main(command) == 0
    before = read_checkpoint(folder / "run/checkpoints/last.ckpt")["state_dict"]
    after = read_checkpoint(folder / "frozen/pretrained/seed_0/checkpoints/last.ckpt")["state_dict"]
    names = [name for name in before if name.startswith("encoder.")]
    assert names and all(torch.equal(before[name], after[name]) for name in names)
    cell = "frozen/pretrained/seed_0"
    first = json.loads((folder / cell / "evaluation.json").read_text())["rows"]
    assert main(["evaluate", f"run={cell}"]) == 0
    assert json.loads((folder / cell / "evaluation.json").read_text())["rows"] == first


def test_the_best_checkpoint_on_val(folder, capsys):
    command = ["finetune", "run=null", "encoder=bert_tiny", *DATA, *SMALL, "data.vocab_size=120", "select=best"]
    assert main([*command, "trainer.max_epochs=3", "run_dir=best"]) == 0
    assert "best checkpoint" in capsys.readouterr().out
    cell = folder / "best/random/seed_0"
    with (cell / "metrics.csv").open() as file:
        values = [row["eval/finetune/accuracy"] for row in csv.DictReader(file)]
    values = [float(value) for value in values if value]
    state = read_checkpoint(cell / "checkpoints/last.ckpt")["callbacks"]["KeepBest"]
    assert state["best"] == pytest.approx(max(values))
    first = json.loads((cell / "evaluation.json").read_text())
    assert main(["evaluate", f"run={cell}"]) == 0, "by the checkpoint that was chosen"
    again = json.loads((cell / "evaluation.json").read_text())
    assert (again["rows"], again["measured"]) == (first["rows"], first["measured"]), "the very same measurement"


def test_an_interrupted_training_goes_on_to_the_same_weights(folder, capsys, monkeypatch):
    command = ["finetune", "run=run", *DATA, *SMALL, "trainer.max_epochs=2", "method.layer_decay=0.7", "seeds=[0,1]"]
    assert main([*command, "run_dir=whole"]) == 0
    step, num_steps = TextClassification.training_step, 0

    def interrupted(self, batch, batch_idx):
        nonlocal num_steps
        num_steps += 1
        if num_steps == 27:  # within the second seed's second epoch
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TextClassification, "training_step", interrupted)
    assert main([*command, "run_dir=parts"]) == 1
    assert "Continue with the same command and run_dir=parts.\n" in capsys.readouterr().err
    monkeypatch.setattr(TextClassification, "training_step", step)
    assert main([*command, "run_dir=parts"]) == 0
    for seed in (0, 1):
        whole, parts = (
            read_checkpoint(folder / name / f"pretrained/seed_{seed}/checkpoints/last.ckpt")["state_dict"]
            for name in ("whole", "parts")
        )
        assert all(torch.equal(whole[name], parts[name]) for name in whole)
    tables = [json.loads((folder / name / "finetune.json").read_text())["rows"] for name in ("whole", "parts")]
    assert tables[0] == tables[1]


def test_a_run_killed_during_its_last_evaluation_makes_it_up(folder, capsys, monkeypatch):
    command = ["finetune", "run=run", *DATA, *SMALL, "trainer.max_epochs=1", "select=best"]
    assert main([*command, "run_dir=not_killed"]) == 0
    whole = EvaluateDuringTraining.on_train_epoch_end

    def killed(self, trainer, method):
        raise RuntimeError("killed")

    monkeypatch.setattr(EvaluateDuringTraining, "on_train_epoch_end", killed)
    assert main([*command, "run_dir=killed"]) == 1
    monkeypatch.setattr(EvaluateDuringTraining, "on_train_epoch_end", whole)
    assert main([*command, "run_dir=killed", "ckpt=last"]) == 0
    found = [json.loads((folder / name / "finetune.json").read_text()) for name in ("not_killed", "killed")]
    assert found[0]["rows"] == found[1]["rows"]
    name = "eval/finetune/accuracy"
    assert found[0]["trainings"][0]["metrics"][name] == found[1]["trainings"][0]["metrics"][name]
    cell = folder / "killed/pretrained/seed_0"
    (cell / "checkpoints/best.ckpt").rename(cell / "elsewhere.ckpt")
    with pytest.raises(FileNotFoundError, match="judged by its best checkpoint.*best.ckpt is missing"):
        judged_checkpoint(cell)
    (cell / "elsewhere.ckpt").rename(cell / "checkpoints/best.ckpt")
    assert judged_checkpoint(cell) == cell / "checkpoints/best.ckpt"
    with (cell / "metrics.csv").open() as file:
        assert [float(row[name]) for row in csv.DictReader(file) if row[name]] == [
            pytest.approx(found[0]["trainings"][0]["metrics"][name])
        ]


def test_ranks_share_a_directory_that_is_named_after_the_time(folder, tmp_path):
    small = [*SMALL, "trainer.max_steps=4", "trainer.devices=2", "trainer.strategy=ddp"]
    command = [sys.executable, "-m", "ssl_lab.cli.main", "finetune", f"run={folder / 'run'}", *DATA, *small]
    absolute = f"data.path={folder / 'films.csv'}"
    done = subprocess.run([*command, absolute], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    (root,) = tmp_path.glob("runs/finetune/*")
    assert (root / "finetune.json").is_file()


@pytest.mark.parametrize("architecture", ["bert", "roberta", "gpt2"])
def test_rows_longer_than_the_positions_are_refused(folder, architecture, capsys):
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "score"), *[(f"a {k}", "b", k % 5) for k in range(80)]])
    data = ["data=text_pairs", "data.path=pairs.csv", "data.score_column=score", "data.vocab_size=120"]
    encoder = ["encoder=bert_tiny", f"encoder.architecture={architecture}"]
    command = ["finetune", "run=null", "task=similarity", *encoder, *data, "data.max_length=257"]
    assert main([*command, "trainer=smoke", "run_dir=wrong"]) == 1
    assert "the encoder has 512 positions. Lower data.max_length to 256." in capsys.readouterr().err


def test_a_classifier_is_judged_again_with_its_own_length_and_classes(folder, capsys):
    words = " ".join(["long"] * 20)
    rows = [(f"{words} it is a {('good', 'bad')[k % 2]} film", ("pos", "neg")[k % 2]) for k in range(80)]
    for name, classes in (("long", {"pos": "pos", "neg": "neg"}), ("other", {"pos": "up", "neg": "down"})):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *[(text, classes[label]) for text, label in rows]])
    data = ["data=hub_text", "data.path=long.csv", "data.label_column=label"]
    length = [*SMALL, "data.max_length=40", "trainer.max_epochs=1"]
    assert main(["finetune", "run=run", *data, *length, "run_dir=longer"]) == 0
    cell = folder / "longer/pretrained/seed_0"
    first = json.loads((cell / "evaluation.json").read_text())["rows"]
    assert main(["evaluate", f"run={cell}", *data]) == 0
    (file,) = cell.glob("evaluation_long_csv_*_test_*.json")
    assert json.loads(file.read_text())["rows"] == first
    other = ["data=hub_text", "data.path=other.csv", "data.label_column=label"]
    assert main(["evaluate", f"run={cell}", *other]) == 1
    assert "tells neg, pos apart, but other.csv has the classes down, up" in capsys.readouterr().err


def test_the_best_checkpoint_needs_a_validation_split_and_its_metric(folder, capsys):
    command = ["finetune", "run=run", *DATA, *SMALL, "select=best"]
    assert main([*command, "data.val_fraction=0", "run_dir=none_best"]) == 1
    assert "needs a val split, but HubText has none" in capsys.readouterr().err
    assert not (folder / "none_best/pretrained/seed_0/checkpoints").exists(), "said before anything is trained"
    assert main([*command, "objective=eval/knn/accuracy", "run_dir=other_best"]) == 1
    assert "best eval/knn/accuracy: found eval/finetune/accuracy" in capsys.readouterr().err
    assert not (folder / "other_best/pretrained/seed_0/checkpoints").exists(), "said at the first evaluation"


def test_results_of_other_pretraining_weights_are_not_kept(folder, capsys):
    shutil.copytree(folder / "run", folder / "run_on")
    command = ["finetune", "run=run_on", *DATA, *SMALL, "trainer.max_epochs=1", "run_dir=of_run_on"]
    assert main(command) == 0
    assert main([*command, "ckpt=last"]) == 0, "the same weights"
    checkpoint = folder / "run_on/checkpoints/last.ckpt"
    contents = read_checkpoint(checkpoint)
    contents["global_step"] += 5
    torch.save(contents, checkpoint)
    capsys.readouterr()
    assert main([*command, "ckpt=last"]) == 1
    error = capsys.readouterr().err
    step = contents["global_step"]
    assert f"started from the weights of step {step - 5}" in error and f"are now those of step {step} " in error


IMAGES = ["data=digits", "task=image_classification", "trainer.accelerator=cpu", "data.batch_size=32"]


def test_few_labels_of_images_are_learned_from_and_an_interrupted_training_ends_alike(folder, capsys, monkeypatch):
    views = ["views@method.views=digits", "method.hidden_dim=16", "method.projection_dim=16", "evaluation=none"]
    small = ["encoder=convnet", "encoder.widths=[4,8]", "trainer=smoke", "data.batch_size=32"]
    assert main(["pretrain", "method=simclr", "data=digits", *small, *views, "run_dir=simclr"]) == 0
    settings = ["data.label_fraction=0.2", "method.mixup_alpha=0.8", "method.ema_decay=0.9", "trainer.max_epochs=2"]
    command = ["finetune", "run=simclr", *IMAGES, *settings]
    assert main([*command, "baseline=true", "run_dir=few"]) == 0
    printed = capsys.readouterr().out
    assert "243 training samples (24 to 25 of each of 10 classes), pretrained weights" in printed
    assert "top-5 accuracy" in printed
    table = json.loads((folder / "few/finetune.json").read_text())
    assert table["num_train_samples"] == 243
    assert [row["name"] for row in table["rows"]] == ["pretrained weights", "random weights", "raw pixels + linear"]
    cell = folder / "few/pretrained/seed_0"
    rows = json.loads((cell / "evaluation.json").read_text())["rows"]
    assert main(["evaluate", f"run={cell}"]) == 0
    assert json.loads((cell / "evaluation.json").read_text())["rows"] == rows, "by the averaged weights again"

    step, num_steps = Classification.training_step, 0

    def interrupted(self, batch, batch_idx):
        nonlocal num_steps
        num_steps += 1
        if num_steps == 10:  # within the second epoch
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classification, "training_step", interrupted)
    assert main([*command, "run_dir=few_parts"]) == 1
    monkeypatch.setattr(Classification, "training_step", step)
    assert main([*command, "run_dir=few_parts"]) == 0
    whole, parts = (
        read_checkpoint(folder / name / "pretrained/seed_0/checkpoints/last.ckpt")["state_dict"]
        for name in ("few", "few_parts")
    )
    assert any(name.startswith("average.encoder.") for name in whole)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)

    frozen = ["method.freeze=encoder", "trainer.max_epochs=1", "run_dir=further"]
    assert main(["finetune", f"run={cell}", *IMAGES, *frozen]) == 0
    further = read_checkpoint(folder / "further/pretrained/seed_0/checkpoints/last.ckpt")["state_dict"]
    names = [name for name in further if name.startswith("encoder.")]
    assert names and all(torch.equal(further[name], whole[f"average.{name}"]) for name in names), "what was judged"


def test_pixels_are_classified_and_drawn(tmp_path, capsys):
    root = write_masked(tmp_path / "masked", size=(8, 8))
    (root / "images/unlabeled").mkdir()
    for k in range(2):
        Image.new("L", (8, 8), k).save(root / f"images/unlabeled/{k}.png")
    data = ["data=mask_folder", f"data.root={root}", "data.batch_size=2"]
    settings = ["encoder=convnet", "encoder.widths=[4,8]", "task=semantic_segmentation", "pictures_every_n_epochs=1"]
    command = ["finetune", "run=null", *settings, *data, "trainer=cpu", "trainer.max_epochs=1"]
    assert main([*command, f"run_dir={tmp_path}/masks"]) == 0
    assert "mIoU" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "masks/finetune.json").read_text())["rows"]
    assert set(row["metrics"]) == {"finetune/miou", "finetune/pixel_accuracy", *(f"class_iou/{k}" for k in range(3))}
    run_dir = tmp_path / "masks/random/seed_0"
    assert (run_dir / "pictures/masks/step_00000002.png").is_file()
    assert "Intersection over union of each class" in (run_dir / "report.html").read_text()
    assert main(["evaluate", f"run={run_dir}"]) == 0, "though images for pretraining have no masks"
    assert json.loads((run_dir / "evaluation.json").read_text())["rows"][-1]["metrics"] == row["metrics"]


def test_labels_of_the_runs_own_data_are_learned_without_naming_them_again(tmp_path, capsys):
    small = ["experiment=simclr_digits", "encoder.widths=[8]", "trainer=smoke", "evaluation=none"]
    assert main(["pretrain", *small, "data.val_fraction=0.2", f"run_dir={tmp_path}/digits"]) == 0
    capsys.readouterr()
    tune = ["finetune", f"run={tmp_path}/digits", "task=image_classification", "trainer=smoke", "trainer.max_epochs=1"]
    assert main([*tune, f"run_dir={tmp_path}/tuned"]) == 0
    printed = capsys.readouterr().out
    assert f"Data: Digits, on which {tmp_path}/digits was trained." in printed
    first = tmp_path / "tuned/pretrained/seed_0"
    assert f"Predict with the first training: ssl-lab predict run={first} input=FILE" in printed
    assert "val_fraction: 0.2" in (first / "config.yaml").read_text()


@pytest.mark.filterwarnings("ignore:All pixels of the")
def test_scores_that_are_not_given_stay_out_of_the_mean_and_a_summary_without_results_is_refused(tmp_path, capsys):
    root = write_masked(tmp_path / "masked", size=(8, 8), num=2)
    for file in root.glob("masks/*/*.png"):
        Image.new("L", (8, 8), 1).save(file)
    data = ["data=mask_folder", f"data.root={root}", "data.batch_size=2", "encoder=convnet", "encoder.widths=[4,8]"]
    command = ["finetune", "run=null", "task=semantic_segmentation", *data, "trainer=cpu", "trainer.max_epochs=1"]
    assert main([*command, "seeds=[0,1]", f"run_dir={tmp_path}/one"]) == 0
    (row,) = json.loads((tmp_path / "one/finetune.json").read_text())["rows"]
    assert row["metrics"]["finetune/miou"] is row["metrics"]["finetune/miou_std"] is None
    (tmp_path / "one/random/seed_0/summary.json").write_text('{"status": "finished"}')
    assert main([*command, "seeds=[0,1]", f"run_dir={tmp_path}/one"]) == 1
    assert "Cannot take" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["run=run"],
            "Cannot fine-tune on the data of run: TextClassification needs data with labels, and films.csv has no",
        ),
        (
            ["run=run", "data.label_column=label"],
            "Cannot set data.label_column without a choice of data. Add data=NAME",
        ),
        (["run=null", "encoder=bert_tiny"], "Cannot fine-tune with run=null and no data="),
        ([*DATA], "needs run"),
        (["run=nowhere", *DATA], "is not a run directory"),
        (["run=null", *DATA], "say which, such as encoder=bert_mini"),
        (["run=run", "encoder=bert_tiny", *DATA], "the encoder is the run's own"),
        (["run=null", "encoder=bert_tiny", "baseline=true", *DATA], "the same training twice"),
        (["run=run", "data=digits"], "was trained on texts of up to 16 tokens, but data= is images of shape (1, 8, 8)"),
        (
            ["run=null", "encoder=convnet", "data=digits", "task=classification"],
            "task on texts, but ConvNet was built for images",
        ),
        (["run=null", "encoder=bert_tiny", *DATA, "task=image_classification"], "changes the column 'image', but Text"),
        (
            ["run=run", *DATA, "data.label_fraction=0.01"],
            "these are 1 labels for 2 classes. Set data.label_f",
        ),
        (["run=run", *DATA, "select=first"], "Choose last, or best"),
        (["run=run", *DATA, "seeds=[1,1]"], "Give different numbers"),
        (["run=run", *DATA, "seeds=[-1]"], "Cannot use seeds=[-1]: a seed is a number from 0 to 4294967295"),
        (["run=run", *DATA, "ckpt=x.ckpt"], "the weights to begin with come from run="),
        (["run=run", *DATA, "method.freeze=9"], "Choose from none, embeddings, encoder"),
        (["run=run", *DATA, "data.max_length=600"], "the encoder has 512 positions"),
        (["run=run", "data=hub_text", "data.path=films.csv"], "Set data.label_column"),
        (["run=run", *DATA, "task=similarity"], "Similarity needs second_input_ids, score, but HubText"),
        (["run=run", *DATA, "task=translaton"], "Did you mean task=translation?"),
    ],
)
def test_errors_are_one_message(args, message, capsys):
    assert main(["finetune", *args, "trainer=smoke", "run_dir=wrong"]) == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


def test_two_commands_do_not_train_in_one_run_directory(folder, capsys):
    command = ["finetune", "run=run", *DATA, *SMALL, "trainer.max_steps=2", "run_dir=held"]
    lock = lock_run(folder / "held")
    try:
        assert main(command) == 1
        assert "Another process trains in held. Wait for it, stop it, or choose another run_dir=." in (
            capsys.readouterr().err
        )
        assert not (folder / "held/pretrained").exists()
    finally:
        lock.release()
    assert main(command) == 0


def test_results_of_an_earlier_command_stay_in_the_table(folder, capsys, monkeypatch):
    command = ["finetune", "run=run", *DATA, *SMALL, "trainer.max_steps=2", "run_dir=more"]
    assert main([*command, "seeds=[1,0]", "baseline=true"]) == 0
    before = json.loads((folder / "more/finetune.json").read_text())
    assert main([*command, "seeds=[2]"]) == 0
    assert "pretrained weights with seed 0, pretrained weights with seed 1, random weights" in capsys.readouterr().out
    after = json.loads((folder / "more/finetune.json").read_text())
    assert [(t["start"], t["seed"]) for t in after["trainings"]] == [
        *[("pretrained", seed) for seed in (0, 1, 2)],
        *[("random", seed) for seed in (0, 1)],
    ]
    assert all(training in after["trainings"] for training in before["trainings"])
    assert [row["name"] for row in after["rows"]] == [
        *("pretrained weights", "random weights (seeds 0, 1)", "word counts + linear")
    ]
    report = folder / "more/pretrained/seed_2/report.html"
    report.unlink()  # as if killed between the end of training and the report
    assert main([*command, "seeds=[2]"]) == 0
    assert report.is_file()
    assert (report.parent / "run.log").read_text().endswith("has finished\n")
    assert after["rows"][1]["metrics"] == before["rows"][1]["metrics"]

    assert main([*command, "seeds=[3]", "optim.lr=1e-4"]) == 1
    assert "holds a training with other settings (optim)" in capsys.readouterr().err
    assert json.loads((folder / "more/finetune.json").read_text()) == after

    def killed(self, batch, batch_idx):
        raise RuntimeError("killed")

    monkeypatch.setattr(TextClassification, "training_step", killed)
    assert main([*command, "seeds=[2,4]"]) == 1
    assert json.loads((folder / "more/finetune.json").read_text()) == after, "what has finished stays"


def test_settings_follow_from_encoder_and_samples_unless_they_are_given(folder, capsys):
    command = ["finetune", "run=run", *DATA, "trainer.accelerator=cpu", "data.max_length=16", "trainer.max_epochs=1"]
    assert main([*command, "run_dir=chosen"]) == 0
    printed = capsys.readouterr().out
    assert "Chosen: optim.lr=0.001 (small encoder, bert-tiny, 128 wide); data.batch_size=16 (65 training" in printed
    assert "trainer.max_epochs=" not in printed.partition("Chosen")[2].partition("\n")[0]
    settings = (folder / "chosen/pretrained/seed_0/config.yaml").read_text()
    assert "lr: 0.001\n" in settings and "batch_size: 16\n" in settings
    assert main([*command, "run_dir=chosen"]) == 0, "the same choices belong into one table"


def test_the_learning_rate_is_searched_on_val_and_kept(folder, capsys, monkeypatch):
    small = ["trainer.accelerator=cpu", "data.batch_size=8", "data.max_length=16", "trainer.max_epochs=1"]
    command = ["finetune", "run=run", *DATA, *small, "optim.lr=auto", "run_dir=searched"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "optim.lr=0.00033" in printed and "optim.lr=0.009" in printed and "scored on val" in printed
    found = json.loads((folder / "searched/learning_rate.json").read_text())
    assert found["split"] == "val" and len(found["rows"]) == 4
    settings = (folder / "searched/pretrained/seed_0/config.yaml").read_text()
    assert f"lr: {found['lr']}\n" in settings
    table = (folder / "searched/finetune.json").read_bytes()
    shutil.rmtree(folder / "searched/pretrained")
    monkeypatch.setattr("ssl_lab.cli.learning_rate._score", lambda *args: pytest.fail("the recorded rate is taken"))
    assert main(command) == 0
    again = json.loads((folder / "searched/finetune.json").read_text())
    assert again["rows"] == json.loads(table)["rows"]
    assert main([*command[:-1], "run_dir=no_val", "data.val_fraction=0"]) == 1
    assert "Cannot choose optim.lr=auto: films.csv has no val split" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("accuracy", "said", "advice"),
    [
        (0.9, "", ""),
        (0.55, "accuracy 55.0 % is below random weights (70.0 %).", "Pretrain for longer"),
        (0.2, "below random weights (70.0 %) and below guessing the most frequent class (30.0 %).", "Train longer"),
    ],
)
def test_a_poor_table_is_named(accuracy, said, advice):
    rows = [
        {"name": f"{start} weights", "metrics": {"finetune/accuracy": value}}
        for start, value in (("pretrained", accuracy), ("random", 0.7))
    ]
    first = {"measured": [{"data": {"scored": "400 abc"}, "frequency": 0.3}]}
    found = str(finetune._verdict(rows, first, descriptions(CLASSES_METRICS, ["finetune/accuracy"])))
    assert said in found and advice in found and bool(found) == bool(said)
