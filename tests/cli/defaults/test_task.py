"""The task that a fine-tuning takes if the command names none."""

import pytest

from ssl_lab.cli.defaults.task import task_for
from ssl_lab.cli.settings import compose_settings
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.text import TextSpec
from ssl_lab.runs.directory import write_spec


@pytest.mark.parametrize(
    ("args", "task"),
    [
        ("data=digits", "image_classification"),
        ("data=image_folder data.root=photos", "image_classification"),
        ("data=mask_folder", "semantic_segmentation"),
        ("data=text_files data.path=films.csv", "classification"),
        ("data=token_labels", "token_classification"),
        ("data=squad", "question_answering"),
        ("data=parallel_text", "translation"),
        ("data=sts_b", "similarity"),
        ("data=text_pairs data.score_column=score", "similarity"),
        ("data=text_pairs", "classification"),
    ],
)
def test_data_decide(args, task):
    found, reason = task_for(["run=null", *args.split()])
    assert found == task and reason.startswith(args.split()[0])


def test_a_task_or_method_of_the_user_stays():
    assert task_for(["run=null", "data=digits", "task=semantic_segmentation"]) is None
    assert task_for(["run=null", "data=digits", "method._target_=mine.Task"]) is None
    assert task_for(["run=null", "data=nowhere"]) is None


@pytest.mark.parametrize(
    ("spec", "task"),
    [
        (ImageSpec(shape=(1, 8, 8), mean=(0.5,), std=(0.2,)), "image_classification"),
        (TextSpec(length=8, vocab_size=9), "classification"),
    ],
)
def test_the_run_decides_for_data_of_unknown_classes(spec, task, tmp_path):
    write_spec(tmp_path, spec)
    (tmp_path / "config.yaml").write_text("data: {_target_: mine.Data}\n")
    for args in ([f"run={tmp_path}"], [f"run='{tmp_path}'", "+data._target_=mine.Data"]):
        assert task_for(args)[0] == task
    assert task_for([f"run={tmp_path}", "data=camvid"])[0] == "semantic_segmentation", "data that are named come first"


def test_the_command_composes_with_it(capsys):
    cfg = compose_settings("finetune", ["run=null", "encoder=convnet", "data=digits"])
    assert cfg.method._target_.endswith(".Classification") and cfg.optim.weight_decay == 0.05
    assert capsys.readouterr().out.startswith("task=image_classification, as data=digits holds images.")
