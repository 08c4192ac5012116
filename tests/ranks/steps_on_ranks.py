"""Run by torchrun: three training steps of every case on W ranks; rank 0 saves losses, gradients and final state.

A case is a module in cases/: ``make()`` gives a small method without chance, ``batch(step)`` the joined batch, and
``before_step(rows)``, if there is one, is told which rows are this process's. With one process, cases whose samples are
not coupled also accumulate gradients over halves and quarters of each batch, with batch normalisation frozen, beside whole
batches with it frozen.
"""

import importlib
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ssl_lab import distributed

sys.path.insert(0, str(Path(__file__).parents[1]))
from ranks.fixed import NUM_SAMPLES

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


def main(folder):
    warnings.filterwarnings("ignore", message="You are trying to `self.log")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    world = distributed.world_size()
    for path in sorted((Path(__file__).parent / "cases").glob("*.py")):
        case = importlib.import_module(f"ranks.cases.{path.stem}")
        results = {f"{path.stem}_{world}": train(case)}
        if world == 1 and not case.make().coupled_by:
            results[f"{path.stem}_whole"] = train(case, frozen_norm=True)
            for num_parts in (2, 4):
                results[f"{path.stem}_parts_{num_parts}"] = train(case, frozen_norm=True, num_parts=num_parts)
        if distributed.rank() == 0:
            for name, result in results.items():
                torch.save(result, f"{folder}/{name}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
