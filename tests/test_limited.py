import os

import pytest
import yaml
from omegaconf import OmegaConf

from ssl_lab.limited import MAX_BYTES, UnreadableFileError, load_json, load_yaml, printable, read_table

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
"""Seven hundred bytes that are three billion words once aliases are replaced."""
HARMFUL_YAML = {
    "bomb": BOMB,
    "bomb of text": f"a: &a {'x' * 9999}\n" + "".join(f"k{k}: *a\n" for k in range(999)),
    "merge bomb": "a: &a {x: 1}\n" + "b: &b {<<: [*a, *a]}\n" + "".join(f"c{k}: *c{k}\n" for k in range(2)),
    "itself": "a: &a [*a]",
    "deep flow": "a: " + "[" * 500 + "]" * 500,
    "deep blocks": "- " * 500 + "x",
    "very deep": "[" * 100_000,
    "a tag": "a: !!python/object/apply:os.system [true]",
    "a plain tag": "a: !!binary aaaa",
    "digits": "a: 0x" + "f" * 5000,
    "sexagesimal": "a: 1" + ":1" * 5000,
    "cut off": "a: [1,",
    "twice": "a: 1\na: 2\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "a list": "- 1",
    "a word": "word",
    "nothing": "",
    "bytes": b"\xff\xfe\x00a",
    "a control character": b"a: \x1b[31m",
    "a key of a list": "? [1]\n: 2",
    "large": "#" * (MAX_BYTES + 1),
}
HARMFUL_JSON = {
    "deep": "[" * 100_000 + "]" * 100_000,
    "levels": '{"a":' * 200 + "1" + "}" * 200,
    "cut off": '{"a": [1',
    "a list": "[1]",
    "a number": "1",
    "nothing": "",
    "bytes": b"\x80\x81",
    "zeros": b"\0" * 100,
    "large": " " * (MAX_BYTES + 1),
}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", HARMFUL_YAML)
def test_harmful_yaml_is_refused(tmp_path, name):
    with pytest.raises(UnreadableFileError, match=r"config.yaml cannot be read \("):
        load_yaml(write(tmp_path / "config.yaml", HARMFUL_YAML[name]))


@pytest.mark.parametrize("name", HARMFUL_JSON)
def test_harmful_json_is_refused(tmp_path, name):
    with pytest.raises(UnreadableFileError, match=r"x.json cannot be read \("):
        load_json(write(tmp_path / "x.json", HARMFUL_JSON[name]))


def test_yaml_is_what_omegaconf_makes_of_it(tmp_path):
    text = "a: 1e-3\nb: 1.5e-05\nc: 2001-02-03\nd: 2001-99-99\ne: .inf\nf: yes\ng: 0x10\nh: null\ni: [1, x]\nj: -1E5\n"
    text += "k: 1e5\nl: '1e5'\nm: 1_000\nn: .5e3\no: e5\np: 1.e3\nq: {<<: {s: 1}, t: 2}\nr: &r {u: [3]}\nw: *r\n1: 2\n"
    path = write(tmp_path / "config.yaml", text)
    assert load_yaml(path) == OmegaConf.to_container(OmegaConf.load(path))
    assert load_yaml(write(path, "- x\n"), list) == ["x"]


def test_numbers_of_json_are_those_that_a_float_can_hold(tmp_path):
    text = f'{{"a": 1e400, "b": NaN, "c": -Infinity, "d": {"9" * 5000}, "e": {"9" * 30}, "f": 3, "g": "\\ud800"}}'
    found = load_json(write(tmp_path / "x.json", text))
    assert found == {"a": None, "b": None, "c": None, "d": None, "e": 1e30, "f": 3, "g": "?"}


def test_only_regular_files_inside_are_read(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    write(tmp_path / "secret.yaml", "a: secret")
    os.mkfifo(run / "pipe")
    (run / "folder").mkdir()
    (run / "loop").symlink_to("loop")
    (run / "nowhere").symlink_to("none")
    (run / "out").symlink_to("../secret.yaml")
    (run / "endless").symlink_to("/dev/zero")
    for name, why in {
        "pipe": "a pipe",
        "folder": "a folder",
        "loop": "symbolic links",
        "nowhere": "a link to nothing",
        "out": "leads out of run",
        "endless": "leads out of run",
    }.items():
        with pytest.raises(UnreadableFileError, match=why):
            load_yaml(run / name, within=run)
    assert load_yaml(run / "out") == {"a": "secret"}
    with pytest.raises(UnreadableFileError, match="a pipe or device"):
        load_yaml(run / "endless")
    with pytest.raises(FileNotFoundError):
        load_yaml(run / "none")
    write(run / "own.yaml", "a: 1")
    (run / "within").symlink_to("own.yaml")
    (tmp_path / "linked").symlink_to(run)
    assert load_yaml(tmp_path / "linked" / "within", within=tmp_path / "linked") == {"a": 1}


def test_rows_before_the_damage_are_read(tmp_path):
    path = tmp_path / "metrics.csv"
    for damage in (b"x" * (2 << 20), b'"' + b"y\n" * 200_000, b"," * 30_000 + b"\n"):
        write(path, b"step,a\n1,2\n" + damage)
        rows = read_table(path)
        assert [next(rows), next(rows)] == [["step", "a"], ["1", "2"]]
        with pytest.raises(UnreadableFileError):
            list(rows)
    write(path, b"step,a\n1,\0002\n\xff,3\n")
    assert list(read_table(path)) == [["step", "a"], ["1", "2"], ["�", "3"]]
    with pytest.raises(UnreadableFileError, match="more than 5 bytes"):
        list(read_table(path, max_bytes=5))


def test_what_steers_a_terminal_is_written_out():
    assert printable("\x1b[2Ja\u202eb\x9bc\ud800\r\n\td") == "\\x1b[2Ja\\u202eb\\x9bc\\ud800\\x0d\n\td"
    assert printable("naïve 漢字 👩\u200d🔬 ±") == "naïve 漢字 👩\u200d🔬 ±"
    assert printable("a\nb", keep="") == "a\\x0ab"


def test_a_file_of_ours_is_read(tmp_path):
    settings = {"a": {"b": [1, 2.5, None, True, "x"]}, "c": "x: y", "d": 1e-3}
    assert load_yaml(write(tmp_path / "c.yaml", yaml.safe_dump(settings))) == settings
