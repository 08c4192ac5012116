"""Three training steps of every case on W ranks; rank 0 saves losses, gradients and final state.

A case is a module in cases/: ``make()`` gives a small method without chance, ``batch(step)`` the joined batch, and
``before_step(rows)``, if there is one, is told which rows are this process's. With one process, cases whose samples are
not coupled also accumulate gradients over thirds of each batch, with batch normalisation frozen, beside whole
batches with it frozen.
"""

import importlib
import warnings
from pathlib import Path

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from ranks.fixed import NUM_SAMPLES
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from ssl_lab import distributed
from ssl_lab.engine.sync_batch_norm import SyncBatchNormLayers

NUM_STEPS = 3


class Step(nn.Module):
    def __init__(self, method):
        super().__init__()
        self.method = method

    def forward(self, batch):
        return self.method.training_step(batch, 0)


def train(case, *, num_parts=1, frozen_norm=False):
    """Losses of the joined batch, gradients of the first step, and the state after the last."""
    rank, world = distributed.rank(), distributed.world_size()
    torch.manual_seed(0)
    method = distributed.synchronise_batch_norm(case.make()).double()
    if frozen_norm:
        for module in method.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    model = DistributedDataParallel(Step(method)) if world > 1 else Step(method)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    losses, gradients = [], {}
    share = NUM_SAMPLES // (world * num_parts)
    for step in range(NUM_STEPS):
        method.progress = lambda step=step: step / NUM_STEPS
        optimizer.zero_grad()
        total = 0.0
        for part in range(num_parts):
            start = (rank * num_parts + part) * share
            rows = slice(start, start + share)
            getattr(case, "before_step", lambda rows: None)(rows)
            loss = model({name: column[rows] for name, column in case.batch(step).items()}) / num_parts
            loss.backward()
            total += loss.detach()
        losses.append(distributed.reduce_sum(total) / world)
        method.on_before_optimizer_step(optimizer)
        if step == 0:
            gradients = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
        optimizer.step()
        method.after_step()
    state = {name: value.clone() for name, value in method.state_dict().items()}
    return {"losses": torch.stack(losses), "gradients": gradients, "state": state}


class Record(Callback):
    """Losses of the joined batch, and the gradients of each optimizer's first step."""

    def __init__(self):
        self.losses, self.gradients = [], {}

    def on_train_start(self, trainer, pl_module):
        for optimizer in trainer.optimizers:
            optimizer.register_step_pre_hook(lambda optimizer, *_: self.look(optimizer, pl_module))

    def look(self, optimizer, method):
        own = {p for group in optimizer.param_groups for p in group["params"]}
        for name, p in method.named_parameters():
            if p in own and p.grad is not None:
                self.gradients.setdefault(name, p.grad.clone())

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.losses.append(distributed.reduce_sum(pl_module.last_loss) / distributed.world_size())


def train_by_lightning(case):
    """What :func:`train` gives, of a method that averages its gradients over ranks itself."""
    rank, world = distributed.rank(), distributed.world_size()
    share = NUM_SAMPLES // world
    rows = slice(rank * share, (rank + 1) * share)
    torch.manual_seed(0)
    method, record = case.make(), Record()
    case.before_step(rows)
    batches = [{name: column[rows] for name, column in case.batch(step).items()} for step in range(NUM_STEPS)]
    trainer = L.Trainer(
        accelerator="cpu",
        devices=world,
        strategy="ddp" if world > 1 else "auto",
        precision="64-true",
        max_epochs=1,
        plugins=[SyncBatchNormLayers()],
        callbacks=[record],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(method, train_dataloaders=DataLoader(batches, batch_size=None))
    state = {name: value.clone() for name, value in method.state_dict().items()}
    return {"losses": torch.stack(record.losses), "gradients": record.gradients, "state": state}


def main(folder):
    warnings.filterwarnings("ignore", message="You are trying to `self.log")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    world = distributed.world_size()
    for path in sorted((Path(__file__).parent / "cases").glob("*.py")):
        case = importlib.import_module(f"ranks.cases.{path.stem}")
        method = case.make()
        if not method.automatic_optimization:
            results = {f"{path.stem}_{world}": train_by_lightning(case)}
        else:
            results = {f"{path.stem}_{world}": train(case)}
        if world == 1 and method.automatic_optimization and not method.coupled_by:
            results[f"{path.stem}_whole"] = train(case, frozen_norm=True)
            results[f"{path.stem}_parts"] = train(case, frozen_norm=True, num_parts=3)
        if distributed.rank() == 0:
            for name, result in results.items():
                torch.save(result, f"{folder}/{name}.pt")
    dist.destroy_process_group()
