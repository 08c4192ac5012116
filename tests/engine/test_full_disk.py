"""A disk without room: training continues, tries again now and then, and saves when there is room."""

import resource
import warnings

import pytest
import torch
from arrays import ArrayImages
from engine.tiny import Tiny, TinyEncoder, trainer
from lightning.pytorch.callbacks import Callback

from ssl_lab.engine.callbacks.pictures import Pictures
from ssl_lab.engine.checkpoints import saving
from ssl_lab.engine.checkpoints.saving import Saving
from ssl_lab.engine.pretrain import pretrain


class DiskIsFull(Callback):
    """From one step to another no file may grow beyond a kilobyte; notes when a checkpoint was tried."""

    def __init__(self, first, last):
        self.first, self.last, self.tried, self.saved = first, last, [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.step = trainer.global_step + 1
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        size = 1000 if self.first <= self.step < self.last else hard
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


@pytest.mark.parametrize("patience", [1e9, 0.0])
def test_a_full_disk_is_told_once_and_not_tried_at_every_batch(patience, tmp_path, monkeypatch):
    disk = DiskIsFull(5, 25)
    write = saving._write_checkpoint

    def noted(trainer, path, **settings):
        disk.tried.append(disk.step)
        reason = write(trainer, path, **settings)
        disk.saved += [disk.step] if reason is None else []
        return reason

    monkeypatch.setattr(saving, "_write_checkpoint", noted)
    monkeypatch.setattr(saving, "_RETRY_SEC", patience)
    data = ArrayImages()
    train = trainer(tmp_path, disk, epochs=8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module="lightning")
        cadences = {"saving": Saving(every_n_steps=1), "pictures": Pictures(every_n_epochs=None)}
        pretrain(Tiny(TinyEncoder(data.spec)), data, train, **cadences)
    told = [str(warning.message) for warning in caught if "could not be saved" in str(warning.message)]
    assert len(told) == 1 and "The state of step 5 could not be saved" in told[0]
    assert "the checkpoint of step 4 stays" in told[0] and "saves when there is room" in told[0]
    assert disk.saved[:4] == [1, 2, 3, 4]
    if patience:  # none but the last, at the end of training
        assert disk.tried[4:] == [5, 32, 32]
    else:
        assert disk.tried[4:7] == [5, 5, 6] and disk.saved[4] == 25
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 32
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 33
