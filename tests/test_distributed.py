import errno
import multiprocessing
from typing import ClassVar

import pytest
import torch
import torch.distributed as dist
from arrays import ArrayImages
from torch import nn

from ssl_lab.distributed import SyncBatchNorm, on_first_rank, synchronise_batch_norm
from ssl_lab.engine.beginning import Beginning
from ssl_lab.evaluation.evaluate import measure
from ssl_lab.evaluation.protocol import LabelFreeProtocol, StreamingProtocol, features_of
from ssl_lab.limited import UnreadableFileError


class NormWithActivation(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: the activation would be lost."""

    def forward(self, x):
        return super().forward(x).relu()


def test_a_batch_norm_that_does_more_is_refused_not_replaced():
    with pytest.raises(ValueError, match="sync_batchnorm=false"):
        synchronise_batch_norm(nn.Sequential(nn.Conv2d(1, 2, 3), NormWithActivation(2)))


def test_plain_ones_are_replaced_and_keep_their_parameters():
    plain = nn.Sequential(nn.Sequential(nn.BatchNorm2d(2)), nn.BatchNorm1d(3))
    weights = [module.weight for module in plain.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    synced = [module for module in synchronise_batch_norm(plain).modules() if isinstance(module, SyncBatchNorm)]
    assert [module.weight for module in synced] == weights


def on_two_ranks(folder, function):
    """What two forked processes of one gloo group return."""

    def work(rank, end):
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
        end.send(function(rank))
        dist.barrier()
        dist.destroy_process_group()

    fork = multiprocessing.get_context("fork")
    ends, workers = [], []
    for rank in range(2):
        here, there = fork.Pipe()
        ends.append(here)
        workers.append(fork.Process(target=work, args=(rank, there)))
        workers[-1].start()
    found = [end.recv() if end.poll(60) else None for end in ends]
    for worker in workers:
        worker.join(10)
    return found


class Broken(LabelFreeProtocol):
    settings: ClassVar = {}

    def score(self, x):
        raise OSError(errno.ENOSPC, "No space left on device")


class BrokenBatch(StreamingProtocol):
    """Fails on the last rank alone."""

    needs = "features"

    def update(self, fn, batch, prepared):
        if dist.get_rank() == 1:
            raise ValueError("rank 1")
        return {"sum": fn(batch).sum()}

    def compute(self, sums, datamodule, split):
        return {"sum": float(sums["sum"])}


def broken_features(batch):
    """Fails on the last rank alone."""
    if dist.get_rank() == 1:
        raise ValueError("rank 1")
    return batch["image"].flatten(1).float()


def test_what_fails_on_one_rank_alone_ends_all_ranks_with_its_message(tmp_path):
    def told(action):
        try:
            return action()
        except (OSError, ValueError, RuntimeError) as error:
            return str(error)

    def damaged():
        raise UnreadableFileError(tmp_path / "summary.json", "it is damaged")

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    def work(rank):
        beginning, done = Beginning(tmp_path, waits=True), []
        beginning.do(lambda: done.append(rank) if rank else full())
        features = {"features": lambda batch: batch["image"].flatten(1).float()}
        data = ArrayImages(num_samples=8, eval_batch_size=2)
        return [
            told(lambda: on_first_rank(lambda: f"rank {rank}")),
            told(lambda: on_first_rank(damaged)),
            told(beginning.begin),
            done,
            told(lambda: measure(features, [Broken()], ArrayImages(num_samples=8), device=torch.device("cpu"))),
            told(lambda: measure(features, [BrokenBatch()], data, device=torch.device("cpu"))),
            told(lambda: features_of(broken_features, data, "test", device=torch.device("cpu"))),
        ]

    first, second = on_two_ranks(tmp_path, work)
    assert first == second
    assert first[0] == "rank 0" and "summary.json" in first[1] and first[3] == []
    assert first[2] == first[4] == "[Errno 28] No space left on device"
    assert first[5] == first[6] == "rank 1"
