"""No call of the package lets a library run code that it finds beside models, data or checkpoints."""

import ast
import copy
import gzip
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from omegaconf import OmegaConf

import ssl_lab
from ssl_lab.cli.trust.spec import read_spec
from ssl_lab.data.files.text_files import read_text
from ssl_lab.data.hub import load_splits
from ssl_lab.encoders.timm_model import TimmModel
from ssl_lab.engine.checkpoints.checkpoint import read_checkpoint
from ssl_lab.engine.checkpoints.restoring import check_is_whole
from ssl_lab.modalities.image import ImageSpec

ROOT = Path(ssl_lab.__file__).parent


def calls():
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                given |= dict(enumerate(map(ast.unparse, node.args)))
                yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), given


def test_every_loader_is_told_to_run_nothing():
    wrong, seen = [], set()
    for place, name, given in calls():
        last = name.rpartition(".")[2]
        if last in ("from_pretrained", "from_config"):
            seen.add(last)
            wrong += [place] * (given.get("trust_remote_code") != "False")
        if name == "torch.load":
            seen.add(name)
            wrong += [place] * (given.get("weights_only") != "True")
        if name in ("np.load", "numpy.load"):
            wrong += [place] * ("allow_pickle" in given)
        dangerous = ("pickle.load", "pickle.loads", "joblib.load", "yaml.unsafe_load", "eval", "exec", "torch.hub.load")
        if name == "pickle.loads" and given.get(0, "").startswith("pickle.dumps("):
            continue  # what was made in the same line
        wrong += [place] * (name in dangerous or last in ("read_pickle", "unsafe_load", "full_load"))
    assert not wrong
    assert seen == {"from_pretrained", "from_config", "torch.load"}


class Evil:
    def __reduce__(self):
        return (open, ("ran", "w"))


def test_pickles_in_checkpoints_arrays_and_tables_are_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "evil": Evil()}, "a.ckpt")
    Path("b.ckpt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    for name in ("a.ckpt", "b.ckpt"):
        with pytest.raises(ValueError, match="was not loaded|damaged"):
            read_checkpoint(Path(name))
    np.save("c.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load("c.npy")
    buffer = io.BytesIO(pickle.dumps(Evil())).getvalue()
    kinds = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": buffer}
    table = pa.table([pa.array(["a", "b"])], schema=pa.schema([pa.field("text", pa.string(), metadata=kinds)]))
    pq.write_table(table.replace_schema_metadata({b"pandas": buffer, b"huggingface": b"{}"}), "train.parquet")
    try:
        load_splits("train.parquet")
    except ValueError as error:
        assert "could not be read" in str(error)
    assert not Path("ran").exists()


def test_arguments_of_libraries_that_name_files_with_code_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = ImageSpec(shape=(3, 32, 32))
    for name in ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"):
        with pytest.raises(ValueError, match=f"encoder.options.{name} is not taken"):
            TimmModel(spec, name="resnet10t", options={name: "evil.pt"})
    with pytest.raises(ValueError, match="names a reader of files"):
        load_splits("pandas", options={"data_files": "evil.pkl"})
    with pytest.raises(ValueError, match="data.options.cache_dir is not taken"):
        load_splits("a/b", options={"cache_dir": "elsewhere"})
    Path("a.csv").write_text("text\nx\n")
    with pytest.raises(ValueError, match="data.options.data_files is not taken"):
        load_splits("a.csv", options={"data_files": "/etc/passwd"})


def test_no_version_of_timm_unpickles_objects(tmp_path, monkeypatch):
    """Some versions that are allowed call ``torch.load(weights_only=False)`` for a folder's or repository's weights."""
    monkeypatch.chdir(tmp_path)
    torch.save(Evil(), "pytorch_model.bin")
    Path("config.json").write_text('{"architecture": "resnet10t"}')
    monkeypatch.setattr(
        timm, "create_model", lambda *args, **given: torch.load("pytorch_model.bin", weights_only=False)
    )
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(pickle.UnpicklingError):
        TimmModel(ImageSpec(shape=(3, 32, 32)), name="local-dir:.", pretrained=True)
    assert not Path("ran").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1" and "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_small_files_that_unpack_to_large_ones_are_refused(tmp_path, monkeypatch):
    sound, packed, twice = (tmp_path / f"{name}.ckpt" for name in ("sound", "packed", "twice"))
    torch.save({"state_dict": {"a": torch.zeros(2**20)}}, sound)
    assert len(read_checkpoint(sound)["state_dict"]["a"]) == 2**20
    with zipfile.ZipFile(sound) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for name in archive.namelist():
            out.writestr(name, archive.read(name))
    with zipfile.ZipFile(sound, "a") as archive:
        data = next(part for part in archive.infolist() if part.filename.endswith("data/0"))
        again = copy.copy(data)
        again.filename = data.filename.replace("data/0", "data/1")
        archive.filelist.append(again)
        archive._didModify = True
    sound.rename(twice)
    for path in (packed, twice):
        with pytest.raises(ValueError, match="larger than the file"):
            read_checkpoint(path)
    monkeypatch.setattr("ssl_lab.data.files.text_files._ALWAYS_TAKEN", 1 << 20)
    bomb, text = tmp_path / "bomb.txt.gz", tmp_path / "text.txt.gz"
    bomb.write_bytes(gzip.compress(bytes(5 << 20)))
    text.write_bytes(gzip.compress(b"a\nb\n"))
    with pytest.raises(ValueError, match="unpacks to more than"):
        read_text(bomb)
    assert read_text(text) == "a\nb\n"


class Large:
    def __reduce__(self):
        return (bytearray, (8 << 30,))


def test_a_checkpoint_makes_nothing_that_it_does_not_hold(tmp_path, monkeypatch):
    """Bytes of any size, a structure that is a hundred times as large in memory, and the reader of old archives."""
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {}, "x": Large()}, path)
    with pytest.raises(ValueError, match="bytes that it does not hold"):
        read_checkpoint(path)
    torch.save({"state_dict": {}, "x": Large()}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="no whole archive as torch writes it"):
        read_checkpoint(path)
    monkeypatch.setattr("ssl_lab.tensors._MOST_STRUCTURE", 1000)
    torch.save({"state_dict": {}, "x": [[]] * 1000}, path)
    with pytest.raises(ValueError, match="take more than 1,000 bytes"):
        read_checkpoint(path)


@pytest.mark.parametrize("weights", [[1], {1: torch.zeros(1)}, {"a": 1}, None])
def test_a_checkpoint_holds_named_tensors(weights, tmp_path):
    torch.save({"state_dict": weights}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="no state_dict of named tensors"):
        read_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("part", "value"),
    [("global_step", "x"), ("data_position", None), ("data_position", {"epoch": 0}), ("optimizer_states", [1]),
     ("loops", {}), ("callbacks", [1]), ("data", [1]), ("optimizers", 5)],
)  # fmt: skip
def test_a_checkpoint_that_lacks_a_part_is_not_resumed(part, value):
    sound = {"global_step": 3, "epoch": 1, "data_position": {"epoch": 1, "batches_done": 0}, "loops": {"fit_loop": {}}}
    sound |= {"callbacks": {}, "optimizer_states": [{"param_groups": []}], "lr_schedulers": []}
    check_is_whole(sound, Path("run"))
    with pytest.raises(ValueError, match=f"no sound {part}"):
        check_is_whole({**sound, part: value}, Path("run"))


def test_a_data_set_of_the_hub_names_its_own_files_alone():
    for file in ("https://evil/x.csv", "/etc/passwd", "../x.csv", "~/x.csv"):
        for files in (file, {"train": ["a.csv", file]}):
            with pytest.raises(ValueError, match="lies outside of the data set a/b"):
                load_splits("a/b", options={"data_files": files})


def test_a_folder_of_timm_describes_a_model_within_limits(tmp_path):
    spec = ImageSpec(shape=(3, 32, 32))
    harmful = ("[" * 10_000, "[]", '{"architecture": "../../x"}', '{"architecture": "resnet10t", "model_args": [1]}',
               '{"architecture": "resnet10t", "model_args": {"checkpoint_path": "evil.pt"}}')  # fmt: skip
    for text in harmful:
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match="config.json (cannot be read|is not a model|should be a mapping)"):
            TimmModel(spec, name=f"local-dir:{tmp_path}")


def spec(kind, **facts):
    return json.dumps({"_target_": f"ssl_lab.modalities.{kind}", **facts})


@pytest.mark.parametrize(
    "text",
    [spec("text.TextSpec", length=8, vocab_size=3_000_000_000), spec("text.TextSpec", length=8, x=1), "[]", "{",
     spec("image.ImageSpec", shape=[3, 100_000, 100_000]), spec("image.ImageSpec", shape=[3, -1, 8]), '{"shape": 8}',
     spec("text.TextSpec", length=8, vocab_size=9, continues_word="0-3000000000"), spec("text.MOST_IDS"),
     spec("text.TextSpec", length=8, vocab_size="a"), '{"_target_": "pathlib.Path"}', '{"_target_": "ssl_lab.types.Layers"}',
     '{"modality": "text", "shape": [8], "vocab_size": 3000000000}', '{"modality": "image", "shape": [3, -1, 8]}'],
)  # fmt: skip
def test_facts_that_no_memory_holds_are_refused(text, tmp_path):
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(ValueError, match=r"spec\.json"):
        read_spec(tmp_path, OmegaConf.create())
