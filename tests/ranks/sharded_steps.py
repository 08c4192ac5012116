"""Three steps of every case by Lightning on W ranks, sharded if there are several; rank 0 saves them.

Arguments: a folder, and cases with what is asked of them, such as ``mlm`` or ``mlm:clip``.
"""

import importlib
import warnings
from pathlib import Path

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from ranks.fixed import NUM_SAMPLES
from torch.utils.data import DataLoader

from ssl_lab import distributed
from ssl_lab.engine.checkpoints.sharded import Sharded, gathered
from ssl_lab.engine.sync_batch_norm import SyncBatchNormLayers
from ssl_lab.optim import LARS, SGD, AdamW

NUM_STEPS = 3


class SeparateSGD(SGD):
    """Not in the fused kernel, which refuses parameters that come to have gradients later than others."""

    def make_optimizer(self, groups):
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum)


class SaveAfterFirstEpoch(Callback):
    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


class Losses(Callback):
    """Of the joined batch, after each step."""

    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.found.append(distributed.reduce_sum(pl_module.last_loss) / distributed.world_size())


def train(case, setting):
    rank, world = distributed.rank(), distributed.world_size()
    num_parts = 2 if setting == "accumulate" else 1
    share = NUM_SAMPLES // (world * num_parts)
    batches = []
    for step in range(NUM_STEPS):
        for part in range(num_parts):
            start = (rank * num_parts + part) * share
            batches.append({name: column[start : start + share] for name, column in case.batch(step).items()})
    getattr(case, "before_step", lambda rows: None)(slice(rank * share, (rank + 1) * share))
    torch.manual_seed(0)
    method, losses = case.make(), Losses()
    method = method if "bf16" in setting else method.double()
    if hasattr(method, "freeze_prototypes_fraction"):
        method.optim = SeparateSGD()
    method.optim = {"adamw": AdamW(), "lars": LARS()}.get(setting, method.optim)
    several = "ddp" if setting == "bf16_ddp" else Sharded()
    if setting == "recompute" and world > 1:
        method.encoder.layer_groups().recompute_activations()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=world,
        strategy=several if world > 1 else "auto",
        precision="bf16-mixed" if "bf16" in setting else "32-true",
        accumulate_grad_batches=num_parts,
        gradient_clip_val=0.1 if setting == "clip" else None,
        max_epochs=1,
        plugins=[SyncBatchNormLayers()],
        callbacks=[losses],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(method, train_dataloaders=DataLoader(batches, batch_size=None))
    state = {name: value.clone() for name, value in gathered(trainer, method).state_dict().items()}
    own = sum(distributed.own_shard(p).numel() for p in method.parameters())
    return {"losses": torch.stack(losses.found), "state": state, "own": own}


def go_on(case, folder):
    """Weights and optimizer state after two epochs at once, and after two with a checkpoint and a new trainer between."""
    rank, world = distributed.rank(), distributed.world_size()
    share = NUM_SAMPLES // world
    rows = slice(rank * share, (rank + 1) * share)
    getattr(case, "before_step", lambda rows: None)(rows)
    batches = [{name: column[rows] for name, column in case.batch(step).items()} for step in range(NUM_STEPS)]
    path, found = Path(folder) / "half.ckpt", {}
    for name, start in (("whole", None), ("resumed", path)):
        torch.manual_seed(len(found))  # other initial weights: those of the checkpoint count
        method = case.make()
        method.optim = AdamW()
        trainer = L.Trainer(
            accelerator="cpu",
            devices=world,
            strategy=Sharded(),
            max_epochs=2,
            callbacks=[SaveAfterFirstEpoch(path)],
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loader = DataLoader(batches, batch_size=None)
        trainer.fit(method, train_dataloaders=loader, ckpt_path=start, weights_only=True)
        trainer.save_checkpoint(Path(folder) / f"{name}.ckpt")
        distributed.barrier()
        contents = torch.load(Path(folder) / f"{name}.ckpt", weights_only=True)
        found[name] = [contents["state_dict"], contents["optimizer_states"][0]["state"], contents["global_step"]]
    return found


def main(folder, *asked):
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message="You are trying to `self.log")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for name in asked:
        case, _, setting = name.partition(":")
        try:
            module = importlib.import_module(f"ranks.cases.{case}")
            result = go_on(module, folder) if setting == "resume" else train(module, setting)
        except ValueError as error:
            result = {"refused": str(error)}
        if distributed.rank() == 0:
            torch.save(result, f"{folder}/{name}_{distributed.world_size()}.pt")
    dist.destroy_process_group()
