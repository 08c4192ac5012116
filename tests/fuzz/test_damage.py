import os
import pickle
import zipfile

import datasets
import pytest
import torch
from fuzz.damage import WRONG, damage

from ssl_lab.engine.checkpoints.checkpoint import read_checkpoint


def test_a_hundred_damaged_files(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    datasets.disable_progress_bars()
    (tmp_path / "files").mkdir()
    found = damage(tmp_path / "files", 100, seed=0)
    assert not [what for what in found if WRONG in what]
    assert found["images left out and counted"] > 20 and found["images read"] > 5
    assert sum(count for what, count in found.items() if what.startswith("checkpoint")) == 20
    assert sum(count for what, count in found.items() if what.startswith("shards")) == 15


def test_a_flipped_bit_of_a_tensor_is_noticed(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"weight": torch.arange(1000)}}, path)
    whole = path.read_bytes()
    place = whole.index(torch.arange(500, 510).numpy().tobytes())
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    assert not torch.equal(torch.load(path)["state_dict"]["weight"], torch.arange(1000))  # torch does not look
    with pytest.raises(
        ValueError, match=r"last\.ckpt is truncated or damaged \(the checksum of last/data/0 in it is wrong"
    ):
        read_checkpoint(path)


@pytest.mark.parametrize("archive", [True, False])
def test_a_checkpoint_that_would_run_code_is_refused_by_name(tmp_path, archive):
    class Attack:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    path = tmp_path / "last.ckpt"
    if archive:
        torch.save({"state_dict": {"weight": torch.ones(2), "x": Attack()}}, path)
        assert zipfile.is_zipfile(path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Attack()}))
    with pytest.raises(ValueError, match=r"last\.ckpt holds .* was not loaded"):
        read_checkpoint(path)
    assert not (tmp_path / "owned").exists()
