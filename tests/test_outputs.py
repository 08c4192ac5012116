"""Outputs are tried before work, replaced at once, and rid of what killed processes have left."""

import fcntl
import json
import os
import platform
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from ssl_lab import outputs
from ssl_lab.export.transformers import write_folder
from ssl_lab.files import temporary_name
from ssl_lab.outputs import check_output, clear, marked, restore

DEAD = 2**22 + 1  # larger than any process number


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
            patch.setattr(outputs, "flush_to_disk", cut)
        try:
            write_folder(out, export("new"), overwrite=True)
        except KeyboardInterrupt:
            pass
    told = restore(out)
    assert set(contents(out).values()) in ({"old"}, {"new"}) and len(contents(out)) == 3
    assert (told != "") == (not at_once and step != "flush")
    left = [path for path in tmp_path.iterdir() if path != out]
    for path in [item for folder in left for item in [*folder.rglob("*"), folder]]:
        os.utime(path, (1, 1))
    clear(out)
    assert contents(tmp_path / "out") and [path.name for path in tmp_path.iterdir()] == ["out"]
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
    with pytest.raises(ValueError, match="not an earlier export"):
        write_folder(project, export("new"), overwrite=True)

    def meanwhile(folder):
        export("new")(folder)
        (other / "config.json").write_text("{}")

    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ValueError, match="not an earlier export"):
        write_folder(other, meanwhile, overwrite=True)
    assert contents(other) == {"config.json": "{}"} and contents(out)["notes.txt"] == "mine"


def test_a_link_stays_and_its_folder_is_replaced(tmp_path):
    write_folder(tmp_path / "real", export("old"))
    (tmp_path / "link").symlink_to("real")
    write_folder(tmp_path / "link", export("new"), overwrite=True)
    assert (tmp_path / "link").is_symlink() and contents(tmp_path / "real")["README.md"] == "new"


def test_left_overs_go_when_their_process_has_gone(tmp_path, capsys):
    def left(name, pid=DEAD, age=0.0):
        folder = tmp_path / temporary_name(name).replace(f"-{os.getpid()}.", f"-{pid}.")
        folder.mkdir(parents=True)
        (folder / "weights").write_text("x")
        for path in (folder / "weights", folder):
            os.utime(path, (time.time() - age,) * 2)
        return folder

    gone, young, busy = left("out"), left("out", pid=os.getpid()), left("out", pid=os.getpid(), age=100.0)
    alive, other, reused = left("out", age=100.0), left("other"), left("out", pid=os.getpid(), age=100.0)
    os.utime(busy / "weights")  # the folder is old, what is in it is not
    handle = os.open(alive, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    clear(tmp_path / "out")
    assert (
        capsys.readouterr().out
        == f"Removed 2 unfinished files or folders that killed processes had left in {tmp_path}.\n"
    )
    assert set(tmp_path.iterdir()) == {young, busy, alive, other}
    os.close(handle)
    clear(tmp_path / "out")
    assert set(tmp_path.iterdir()) == {young, busy, other}
    clear(tmp_path / "out")
    assert capsys.readouterr().out.count("\n") == 1 and not gone.exists() and not reused.exists()


def killed_run(folder, *, pid):
    """A run that was killed while it saved and drew."""
    for name in (
        "checkpoints/last.ckpt",
        "checkpoints/last.partial",
        "pictures/views/step_1.png",
        "config.yaml",
        ".lock",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    for place in (folder, folder / "checkpoints", folder / "pictures/views", folder / "replaced"):
        place.mkdir(exist_ok=True)
        (place / temporary_name("a").replace(f"-{os.getpid()}.", f"-{pid}.")).write_text("half")
    (folder / "heartbeat.json").write_text(json.dumps({"host": platform.node(), "pid": pid}))
    for mine in ("notes.unfinished", "checkpoints/mine.partial", "checkpoints/.hidden", ".a.unfinished"):
        (folder / mine).write_text("mine")
    return folder


def test_a_run_directory_is_cleared_of_what_killed_processes_left(tmp_path, capsys):
    run = killed_run(tmp_path / "run", pid=DEAD)
    before = {path for path in run.rglob("*") if path.is_file()}
    with (run / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another process trains here again
        clear(runs=[run])
        assert (run / "checkpoints/last.partial").exists()
    assert "Removed 4 unfinished files or folders" in capsys.readouterr().out
    clear(runs=[run])
    assert "Removed 1 unfinished file or folder" in capsys.readouterr().out
    removed = {path.name for path in before if not path.exists()}
    assert len(removed) == 5 and all(".a." in name or name == "last.partial" for name in removed)
    assert (run / "checkpoints/mine.partial").read_text() == "mine" and (run / ".a.unfinished").read_text() == "mine"


def test_a_checkpoint_that_another_host_may_be_writing_stays(tmp_path):
    run = killed_run(tmp_path / "run", pid=DEAD)
    half = run / "checkpoints/last.partial"
    (run / "heartbeat.json").write_text(json.dumps({"host": "elsewhere", "pid": DEAD}))
    clear(runs=[run])
    assert half.exists()
    os.utime(half, (1, 1))
    clear(runs=[run])
    assert not half.exists()
    half.write_text("x")
    clear(runs=[run], are_held=True)
    assert not half.exists()
    (run / ".lock").unlink()
    half.symlink_to(run / "checkpoints/last.ckpt")
    clear(runs=[run], are_held=True)
    assert half.is_symlink()


def replace_and_die(out, at, at_once, monkeypatch):
    """Replace an export, and be killed before the change of names that has a number."""
    left, rename = [at], Path.rename

    def die(real, *args, **settings):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return real(*args, **settings)

    monkeypatch.setattr(outputs, "exchange", partial(die, outputs.exchange if at_once else lambda a, b: False))
    monkeypatch.setattr(outputs.shutil, "rmtree", partial(die, outputs.shutil.rmtree))
    monkeypatch.setattr(Path, "rename", lambda path, target: die(rename, path, target))
    try:
        write_folder(out, export("new"), overwrite=True)
    finally:
        os._exit(0)


@pytest.mark.parametrize("at_once", [True, False])
def test_an_export_that_is_killed_between_its_renames_comes_back(tmp_path, monkeypatch, at_once):
    """SIGKILL of a process of its own before and after each change of names."""
    out = tmp_path / "out"
    for at in range(4):
        write_folder(out, export("old"), overwrite=True)
        child = os.fork()
        if child == 0:
            replace_and_die(out, at, at_once, monkeypatch)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert killed or (at_once and at > 1)
        restore(out)
        clear(out)
        assert set(contents(out).values()) in ({"old"}, {"new"}) and len(contents(out)) == 3
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


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
        (file / "below", False, "is not a folder"),
        (Path("/proc/x/y"), False, "/proc cannot be written to"),
        (Path("/proc/x"), True, "/proc cannot be written to"),
    ):
        with pytest.raises(ValueError, match=message):
            check_output(out, folder=folder)


def test_a_file_that_something_else_wrote_is_not_replaced(tmp_path):
    ours = marked(b"made by us", begin=b"<p>")
    notes, made, empty, link = (tmp_path / name for name in ("notes", "made", "empty", "link"))
    notes.write_text("<p>mine")
    made.write_bytes(b"<p>" + bytes(1 << 20) + b"made by us")
    empty.touch()
    link.symlink_to(notes)
    for path in (notes, link):
        with pytest.raises(ValueError, match="did not write the file that is there"):
            check_output(path, ours=ours)
    for path in (made, empty, tmp_path / "new"):
        check_output(path, ours=ours)
