"""What a hurried stranger types: each command says what it cannot do and what to do, and writes nothing."""

import shutil

import pytest
import torch

from ssl_lab.cli.commands import SETTINGS
from ssl_lab.cli.main import main
from ssl_lab.cli.process import prepare_process
from ssl_lab.cli.trust.own_of_commands import _TYPES, _defaults

TINY = ["method=vae", "encoder.widths=[4]", "data.batch_size=256", "trainer=smoke", "trainer.max_steps=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``run``, the same without a checkpoint, an empty folder and a file."""
    folder = tmp_path_factory.mktemp("stranger")
    assert main(["pretrain", *TINY, "evaluation=none", "pictures_every_n_epochs=null", f"run_dir={folder}/run"]) == 0
    shutil.copytree(folder / "run", folder / "bare")
    shutil.rmtree(folder / "bare/checkpoints")
    (folder / "empty").mkdir()
    (folder / "file").write_text("x")
    (folder / "text.txt").write_text("some text\n" * 20)
    return folder


RUN_COMMANDS = (
    "evaluate",
    "embed",
    "sample",
    "reconstruct",
    "interpolate",
    "export out=new",
    "predict text=a",
    "neighbours text=a",
)
CASES = [
    *(
        (f"{name} run={wrong}", "is not a run directory")
        for name in RUN_COMMANDS
        for wrong in ("none", "file", "empty")
    ),
    *((f"{name} run=bare", "No checkpoint at bare") for name in RUN_COMMANDS),
    *((f"{name} run=", "run= names no path") for name in RUN_COMMANDS),
    *((f"{name} rnu=run run=run", "There is no setting 'rnu'") for name in RUN_COMMANDS),
    *((f"{name} run=run ++extra=1", "++extra=1 has no effect") for name in RUN_COMMANDS),
    *((f"{name} run=run --flag", "--flag is not an option") for name in RUN_COMMANDS),
    *((f"{name} run=run -x", "-x is not an option") for name in RUN_COMMANDS),
    *((f"{name} run=run word", "Cannot read the argument 'word'") for name in RUN_COMMANDS),
    *((f"{name} out=new", "needs run=DIR") for name in ("evaluate", "embed", "sample", "export", "predict")),
    ("evaluate run=[]", "found run=[]"),
    ("evaluate run=run data=digits data.seed=3", "the order of samples comes from seed="),
    ("pretrain data.seed=3", "the order of samples comes from seed="),
    ("evaluate run=run split=3", "split should be text, found 3"),
    ("evaluate run=run split=tset evaluation=label_free", "There is no split 'tset'"),
    ("evaluate run=run metric=fid", "metric should be a mapping"),
    ("evaluate run=run metric.encoder=run:run", "none takes an encoder"),
    ("evaluate run=run evaluation=konn", "There is no evaluation 'konn'"),
    ("evaluate run=run evaluation=none", "measures nothing"),
    ("evaluate run=run baselines=maybe", "baselines should be true or false"),
    ("evaluate run=run evaluation=samples baselines=false", "no protocol of evaluation= judges"),
    ("evaluate run=run out=file evaluation=label_free", "is not a folder"),
    ("finetune", "needs run=DIR"),
    ("finetune run=run task=classification", "Choose another task=, such as image_classification"),
    ("finetune run=run data=digits task=classification", "is a task on texts, but ConvNet was built for images"),
    ("finetune run=null data=digits encoder=bert_mini", "TextTransformer takes texts, but the data is images"),
    ("finetune run=run data=digits seeds=0", "seeds should be a list of which each is a whole number, found 0"),
    ("finetune run=run data=digits seeds=[a]", "found ['a']"),
    ("finetune run=run data=digits seeds=[1,1]", "Give different numbers"),
    ("finetune run=run data=digits baseline=maybe", "baseline should be true or false"),
    ("finetune run=run data=digits select=worst", "Choose last, or best"),
    ("embed run=run out=new.txt", "ends in .parquet, .npy or .csv"),
    ("embed run=run out=empty", "it is a folder, and a file is written"),
    ("embed run=run out=file/f.parquet", "is not a folder"),
    ("embed run=run splits=test", "splits should be a list of which each is text, found 'test'"),
    ("embed run=run splits=[]", "Give different splits"),
    ("embed run=run splits=[test,test]", "Give different splits"),
    ("predict run=run", "needs input=FILE, input=FOLDER or text='...'"),
    ("predict run=run input=none", "no such file or folder"),
    ("predict run=run input=file text=a", "Give files, or one text"),
    ("predict run=run text=a columns={text:b}", "no table is given"),
    ("predict run=run text=a columns=b", "columns should be a mapping"),
    ("predict run=run text=a batch_size=0", "batch_size to 1 or more"),
    ("predict run=run input=file out=new.txt", "a name that ends in .csv, .jsonl or .parquet"),
    ("predict run=run input=file out=file", "a name that ends in .csv"),
    ("predict run=run input=empty", "VAE has pretrained an encoder, which has no head of a task yet"),
    ("sample run=run num_samples=many", "num_samples should be a whole number"),
    ("sample run=run num_samples=0 out=new.png", "num_samples=0"),
    ("sample run=run seed=a", "seed should be a whole number"),
    ("sample run=run truncation=high", "truncation should be a number"),
    ("sample run=run label=3", "Leave label out"),
    ("sample run=run out=file", "it is a file, and a folder is written"),
    ("sample run=run format=gif out=new", "There is no format 'gif'"),
    ("sample run=run text=a prompt=b", "prompt has no meaning"),
    ("sample run=run text=a", "does not predict masked tokens"),
    ("sample run=run prompt=a", "does not generate any"),
    ("reconstruct run=run num_images=x", "num_images should be a whole number"),
    ("reconstruct run=run num_images=0", "num_images=0"),
    ("reconstruct run=run out=new.jpg", "ends in .png"),
    ("interpolate run=run steps=x", "steps should be a whole number"),
    ("interpolate run=run steps=1", "Choose 2 or more"),
    ("interpolate run=run first=0 second=99999", "the test split has 0 to"),
    ("interpolate run=run first=0 seed=1", "Give one or the other"),
    ("export run=run", "needs out"),
    ("export run=run out=new format=word", "There is no format 'word'"),
    ("export run=run out=file", "it is a file. Give out= a new folder"),
    ("export run=run out=run", "not an earlier export"),
    ("export run=run out=new overwrite=maybe", "overwrite should be true or false"),
    ("export run=run out=new private=true", "Give push_to_hub=USER/NAME"),
    ("prepare data=digits out=new", "tokenises text"),
    ("prepare data=text_files out=new", "needs data.path"),
    ("prepare data.path=empty out=new", "Cannot read empty"),
    ("prepare data.path=text.txt out=file", "it is a file"),
    ("prepare data.path=text.txt out=new num_workers=x", "num_workers should be a whole number"),
    ("prepare data.path=text.txt out=new num_workers=-1", "must be positive"),
    ("bench num_steps=0", "num_steps of at least 1"),
    ("bench warmup_steps=-1", "warmup_steps of at least 0"),
    ("bench max_minutes=0", "minutes above 0, or null"),
    ("bench num_steps=x", "num_steps should be a whole number"),
    ("bench out=empty", "it is a folder, and a file is written"),
    ("report", "required: DIR. See ssl-lab report --help"),
    ("report none", "Cannot report on none: there is no such directory"),
    ("report empty", "it is not a run"),
    ("report bare none", "there is no such directory"),
    ("report run --out empty", "Give --out another place"),
    ("runs none", "there is no such folder"),
    ("runs file", "there is no such folder"),
    ("runs run --status lost", "invalid choice: 'lost'"),
    ("runs run --limit -3", "--limit"),
    ("runs run --limit x", "'x' is not a whole number"),
    ("runs run --flag", "unrecognized arguments: --flag"),
    ("runs best", "found none. Name it"),
    ("runs best nope run", "none has measured it"),
    ("leaderboard run", "no run has finished with an evaluation"),
    ("leaderboard none", "there is no such folder"),
    ("leaderboard run --out file", "it is a file"),
    ("leaderboard run --update none.md", "there is no such file"),
    ("dashboard none", "there is no such folder"),
    ("dashboard run --port x", "invalid int value: 'x'"),
    ("dashboard run --port 99999999", "99999999"),
    ("dashboard run --out file", "it is a file, and a folder is written"),
    ("list metods", "There is no list of 'metods'"),
    ("report run=run", "give the path alone: run"),
    ("evaluate run=run,bare", "ssl-lab evaluate takes several runs as 'run=[run,bare]'"),
    ("evaluate run=.", "It holds 2 runs: give one, such as run=bare"),
    ("pretrain run=.", "It holds 2 runs: give one, such as run=bare"),
    ("pretrain method=SimCLR", "Did you mean method=simclr"),
    ("pretrain method=BARLOW-TWINS", "Did you mean method=barlow_twins"),
    ("list --flag", "There is no list of '--flag'"),
    ("evalute run=run", "there is no command 'evalute'. Did you mean evaluate?"),
    ("pretrain +a=1 run_dir=new", "+a=1 has no effect"),
    ("pretrain ++a.b=1 run_dir=new", "reads no setting 'a'"),
    ("pretrain hydra.run.dir=", "hydra.run.dir= names no path"),
    ("pretrain run_dir=''", "run_dir= names no path"),
    ("pretrain seed=a run_dir=new", "seed should be a whole number"),
]


def test_every_setting_of_a_command_has_a_type():
    """Paths and texts are read as they are; the groups hold objects, whose types their signatures say."""
    texts = {"text", "prompt", "second_text", "question"}
    as_they_are = {
        "run",
        "out",
        "run_dir",
        "sweep_dir",
        "ckpt",
        "input",
        "query",
        "trial",
        "trainer",
        "encoder",
        "lora",
        "hydra",
        *texts,
    }
    for name in (*SETTINGS, "pretrain"):
        own = {key for key, default in _defaults(name).items() if default is not ...}
        assert own <= {*_TYPES, *as_they_are}, f"a new setting of {name} needs its type in _TYPES"


@pytest.mark.parametrize(("line", "message"), CASES, ids=[line for line, _ in CASES])
def test_a_wrong_input_is_told_in_one_message(line, message, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert main(line.split()) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("ssl-lab: ") and message in printed
    assert not any(phrase in printed for phrase in ("Traceback", "bug in ssl_lab", "Errno", "usage:"))
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert {path.name for path in after if after[path] != before.get(path)} <= {".lock"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trainer=gpu", "this machine has no such device"),
        ("trainer.accelerator=cuda", "this machine has no such device"),
        ("trainer.max_epochs=-3", "Lightning's trainer refuses its settings: `max_epochs`"),
    ],
)
def test_what_the_trainer_cannot_do_is_named(setting, message, tmp_path, capsys):
    if "device" in message and torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    assert main(["pretrain", setting, f"run_dir={tmp_path / 'run'}"]) == 1
    assert message in capsys.readouterr().err


def test_an_added_setting_that_another_refers_to_is_taken(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["evaluate", "run=run", "+name=tset", "split=${name}", "evaluation=label_free"]) == 1
    assert "There is no split 'tset'" in capsys.readouterr().err


def test_an_empty_word_is_no_path(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for command in ("runs", "report", "leaderboard", "dashboard"):
        assert main([command, ""]) == 1
        assert "a path is empty" in capsys.readouterr().err


def test_warnings_of_lightning_are_shown_but_for_those_nobody_can_act_on(monkeypatch):
    import warnings

    from lightning.fabric.utilities.rank_zero import rank_zero_warn

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepare_process()
        rank_zero_warn("The 'train_dataloader' does not have many workers which may be a bottleneck.")
        rank_zero_warn("Checkpoint directory /x exists and is not empty.")
        rank_zero_warn("`training_step` returned `None`. If this was on purpose, ignore this warning...")
    assert [str(one.message).split(".")[0] for one in caught] == ["`training_step` returned `None`"]


def test_only_the_first_rank_warns(monkeypatch, capsys):
    import sys
    import warnings

    def warn(args):
        sys.stderr.write(warnings.formatwarning("seen by all", UserWarning, "file.py", 1))
        return 0

    monkeypatch.setattr("ssl_lab.cli.main._command", lambda name: warn)
    for rank, expected in (("1", ""), ("0", "ssl-lab: Warning: seen by all\n")):
        monkeypatch.setenv("RANK", rank)
        assert main(["runs"]) == 0
        assert capsys.readouterr().err == expected
