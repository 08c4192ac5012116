"""Outputs are tried before work, replaced at once, and rid of what killed processes have left."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from ssl_lab import outputs
from ssl_lab.engine.export import write_folder
from ssl_lab.outputs import check_output, remove_left_overs, restore


def export(text):
    def write(folder):
        for name in ("config.json", "model.onnx", "README.md"):
            (folder / name).write_text(text)

    return write


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("step", ["rename", "rmtree", "flush"])
def test_an_export_that_is_cut_off_while_it_is_replaced_is_there_or_comes_back(tmp_path, monkeypatch, at_once, step):
    out = tmp_path / "out"
    write_folder(out, export("old"))
    real = Path.rename
    renamed = []

    def cut(*args, **kwargs):
        raise KeyboardInterrupt

    def rename(path, target):
        renamed.append(target)
        return cut() if len(renamed) == 2 else real(path, target)

    with monkeypatch.context() as patch:
        if not at_once:
            patch.setattr(outputs, "exchange", lambda a, b: False)
        if step == "rename":
            patch.setattr(Path, "rename", rename)
        elif step == "rmtree":
            patch.setattr(outputs.shutil, "rmtree", cut)
        else:
            patch.setattr(outputs, "_flush", cut)
        try:
            write_folder(out, export("new"), overwrite=True)
        except KeyboardInterrupt:
            pass
    told = restore(out)
    assert set(contents(out).values()) in ({"old"}, {"new"}) and len(contents(out)) == 3
    assert (told != "") == (not at_once and step != "flush")
    left = [path for path in tmp_path.iterdir() if path != out]
    for path in left:
        os.utime(path, (1, 1))
    assert remove_left_overs(out) == len(left) and contents(tmp_path / "out")
    write_folder(out, export("third"), overwrite=True)
    assert set(contents(out).values()) == {"third"} and os.listdir(tmp_path) == ["out"]


def test_a_folder_that_is_no_export_is_never_replaced(tmp_path):
    out = tmp_path / "out"
    write_folder(out, export("old"))
    with pytest.raises(ValueError, match="overwrite=true"):
        write_folder(out, export("new"))
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="it also holds notes.txt"):
        write_folder(out, export("new"), overwrite=True)
    project = tmp_path / "project"
    project.mkdir()
    (project / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="no earlier export"):
        write_folder(project, export("new"), overwrite=True)

    def meanwhile(folder):
        export("new")(folder)
        (other / "config.json").write_text("{}")

    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ValueError, match="no earlier export"):
        write_folder(other, meanwhile, overwrite=True)
    assert contents(other) == {"config.json": "{}"} and contents(out)["notes.txt"] == "mine"


def test_a_link_stays_and_its_folder_is_replaced(tmp_path):
    write_folder(tmp_path / "real", export("old"))
    (tmp_path / "link").symlink_to("real")
    write_folder(tmp_path / "link", export("new"), overwrite=True)
    assert (tmp_path / "link").is_symlink() and contents(tmp_path / "real")["README.md"] == "new"


def test_left_overs_go_when_their_process_has_gone(tmp_path):
    def left(name, age=100.0):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "weights").write_text("x")
        os.utime(folder, (time.time() - age,) * 2)
        return folder

    gone, young = left(".out.1.ab.unfinished"), left(".out.2.ab.unfinished", age=1.0)
    alive, other = left(".out.3.ab.unfinished"), left(".other.1.ab.unfinished")
    handle = os.open(alive, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert remove_left_overs(tmp_path / "out") == 1
    assert not gone.exists() and young.exists() and alive.exists() and other.exists()
    os.close(handle)
    assert remove_left_overs(tmp_path, inside=True) == 2 and young.exists()


def test_an_output_is_tried_before_work(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    check_output(tmp_path / "new/folder/file.png")
    check_output(tmp_path / "new", folder=True)
    check_output(Path("/dev/null"))
    assert os.listdir(tmp_path) == ["file"]
    for out, folder, message in (
        (tmp_path, False, "it is a folder"),
        (file, True, "it is a file"),
        (file / "below", False, "is no folder"),
        (Path("/proc/x/y"), False, "/proc cannot be written to"),
        (Path("/proc/x"), True, "/proc cannot be written to"),
    ):
        with pytest.raises(ValueError, match=message):
            check_output(out, folder=folder)
