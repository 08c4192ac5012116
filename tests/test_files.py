import errno
import fcntl
import os
import stat
import time

import pytest

from ssl_lab import files
from ssl_lab.files import replace_file, temporary_name, write_atomically

DEAD = 2**22 + 1  # larger than any process number


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_keeps_its_mode_and_a_new_one_has_that_of_the_umask(tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("old")
    for wanted in (0o600, 0o664):
        kept.chmod(wanted)
        replace_file(kept, b"new")
        assert mode(kept) == wanted and kept.read_text() == "new"
    before = os.umask(0o077)
    try:
        assert mode(replace_file(tmp_path / "new", b"x")) == 0o600
    finally:
        os.umask(before)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_file_keeps_its_owner(tmp_path):
    path = replace_file(tmp_path / "a", b"x")
    os.chown(path, 12345, 23456)
    path.chmod(0o640)
    replace_file(path, b"y")
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (12345, 23456, 0o640)


def test_a_link_stays_where_the_user_names_it_and_nowhere_else(tmp_path):
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "README.md"
    target.write_text("old")
    target.chmod(0o600)
    link = tmp_path / "README.md"
    link.symlink_to("real/README.md")
    replace_file(link, b"new", through_link=True)
    assert link.is_symlink() and target.read_text() == "new" and mode(target) == 0o600
    replace_file(link, b"other")
    assert not link.is_symlink() and link.read_text() == "other" and target.read_text() == "new"
    new = tmp_path / "to_come"
    new.symlink_to("real/not_yet")
    replace_file(new, b"x", through_link=True)
    assert new.is_symlink() and (tmp_path / "real" / "not_yet").read_text() == "x"


def test_what_is_no_file_is_not_replaced_by_one(tmp_path):
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path, b"x")
    replace_file(tmp_path / "null", b"x")
    (tmp_path / "null").unlink()
    (tmp_path / "null").symlink_to("/dev/null")
    replace_file(tmp_path / "null", b"x", through_link=True)
    assert (tmp_path / "null").is_symlink() and stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = replace_file(tmp_path / "a", b"old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_atomically(path, fail)
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and path.read_text() == "old"


def test_a_full_disk_names_the_file(tmp_path):
    for filename in ((), (str(tmp_path / "other"),)):

        def fail(temporary, filename=filename):
            raise OSError(errno.ENOSPC, "No space left on device", *filename)

        with pytest.raises(OSError, match="No space left") as raised:
            write_atomically(tmp_path / "a", fail)
        assert raised.value.filename == (filename or (str(tmp_path / "a"),))[0] and raised.value.errno == errno.ENOSPC


def test_left_overs_of_a_kill_are_removed_and_those_of_the_living_are_not(tmp_path):
    here, pid = temporary_name("a").split(".")[2].split("-")
    left = [f".a.{here}-{DEAD}.00000000.unfinished", f".a.{here}-{pid}.0000000a.unfinished"]
    left += [".a.abcdef-1.00000000.unfinished", ".a.1.00000000.unfinished"]  # another host, an earlier version
    kept = [f".ab.{here}-{DEAD}.00000000.unfinished", f".a.{here}-{pid}.00000001.unfinished"]  # another file, locked
    kept += [".a.x.unfinished", ".a.1.x.unfinished", ".a.unfinished", "a.1.00000000.unfinished"]  # the user's
    young = [f".a.{here}-{pid}.00000002.unfinished", ".a.abcdef-1.00000002.unfinished", ".a.1.00000002.unfinished"]
    for name in (*left, *kept, *young):
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (0, 0))
    os.utime(tmp_path / young[0])
    for name in young[1:]:
        os.utime(tmp_path / name, (time.time() - 3600,) * 2)
    (tmp_path / f".a.{here}-{DEAD}.00000003.unfinished").symlink_to("a")
    with (tmp_path / kept[1]).open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        replace_file(tmp_path / "a", b"x")
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"a", *kept, *young, f".a.{here}-{DEAD}.00000003.unfinished"}


def test_many_files_list_their_folder_once(tmp_path, monkeypatch):
    listed = []
    monkeypatch.setattr(files, "temporaries", lambda folder, **_: listed.append(folder) or [])
    for k in range(20):
        replace_file(tmp_path / f"{k % 10}.js", b"x", durable=False)
        replace_file(tmp_path / "part" / f"{k % 10}.js", b"x", durable=False)
    assert listed == [tmp_path, tmp_path / "part"]
