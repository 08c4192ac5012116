import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from ssl_lab.data import store
from ssl_lab.data.store import build_once, cache_folder, fingerprint

SCRIPT = Path(__file__).with_name("slow_build.py")


def test_processes_that_start_together_build_once_and_see_it_whole(tmp_path):
    log = tmp_path / "log"
    commands = [[sys.executable, str(SCRIPT), str(log)]] * 3
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    assert [process.communicate(timeout=120)[0].strip() for process in processes] == ["['first', 'second']"] * 3
    assert log.read_text() == "built\n"


def test_a_failed_build_leaves_nothing():
    def fail(folder):
        (folder / "half").write_text("")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        build_once("key", fail)
    assert not [path for path in cache_folder().iterdir() if path.is_dir()]
    assert list(build_once("key", lambda folder: None).iterdir()) == []


def test_what_a_killed_process_left_is_removed(capsys):
    cache_folder().mkdir(parents=True)
    child = os.fork()
    if child == 0:
        build_once("other", lambda folder: [(folder / "half").write_text("x"), os.kill(os.getpid(), signal.SIGKILL)])
    os.waitpid(child, 0)
    mine = [cache_folder() / name for name in ("key.unfinished", ".mine.unfinished", ".key.1.unfinished")]
    for path in mine:
        path.write_text("")
        os.utime(path, (0, 0))
    assert len(list(cache_folder().glob(".other.*.unfinished"))) == 1
    assert list(build_once("key", lambda folder: None).iterdir()) == []
    assert capsys.readouterr().out.startswith("Removed 1 unfinished file or folder")
    assert not list(cache_folder().glob(".other.*")) and all(path.is_file() for path in mine)


def test_a_cache_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ValueError, match=r"cannot be written to.*SSL_LAB_CACHE"):
        build_once("key", lambda folder: None)


def test_a_lock_is_free_after_the_build():
    folder = build_once("key", lambda folder: None)
    with FileLock(f"{folder}.lock", timeout=0):
        assert folder.is_dir()


def test_fingerprints_are_stable():
    assert fingerprint({"b": 1, "a": [2]}) == fingerprint({"a": [2], "b": 1}) == "41ff4104bc489a1b119b"


def test_what_is_found_in_large_files_is_kept_until_they_change(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_READ_AGAIN_BYTES", 10)
    file, looks = tmp_path / "x", []

    def look():
        looks.append(1)
        return {"looks": len(looks)}

    for content, known in (("a" * 20, 1), ("a" * 20, 1), ("b" * 21, 2), ("b", 3), ("b", 4)):
        if not file.exists() or file.read_text() != content:
            file.write_text(content)
        facts, num_bytes = store.status_of([file])
        assert store.remembered("k", facts, look, num_bytes=num_bytes) == {"looks": known}
