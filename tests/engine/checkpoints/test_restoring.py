"""Which checkpoints fit a method."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_lab.engine.checkpoints.checkpoint import read_checkpoint
from ssl_lab.engine.checkpoints.restoring import check_weights_fit


class Remembering(nn.Linear):
    """A module that keeps plain values beside its weights, as PyTorch allows."""

    def get_extra_state(self):
        return {"scale": 3}

    def set_extra_state(self, state):
        self.scale = state["scale"]


def test_what_a_module_keeps_beside_its_weights_is_read_again(tmp_path):
    method = nn.Sequential(Remembering(2, 2))
    torch.save({"state_dict": method.state_dict()}, tmp_path / "last.ckpt")
    contents = read_checkpoint(tmp_path / "last.ckpt")
    check_weights_fit(method, contents, Path("run"))
    method.load_state_dict(contents["state_dict"])
    assert method[0].scale == 3
    with pytest.raises(ValueError, match=r"0\.weight is \(2, 2\) in the checkpoint and \(3, 2\) in the network"):
        check_weights_fit(nn.Sequential(Remembering(2, 3)), contents, Path("run"))
