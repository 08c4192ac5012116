"""Online probes on W ranks that share the batches of one; each rank saves its probe and metrics."""

import torch
from arrays import ArrayImages
from engine.tiny import Tiny, TinyEncoder, fit, trainer

from ssl_lab import distributed
from ssl_lab.engine.callbacks.online_probes import OnlineProbes
from ssl_lab.optim import SGD


class HalfLabelled(ArrayImages):
    """Labels of most rows, unevenly spread over the ranks; a row's image says nothing of where it lies."""

    def columns(self, split):
        columns = super().columns(split)
        return {**columns, "label": torch.where(torch.arange(self.num_samples) % 5 == 0, -1, columns["label"])}


class Still(Tiny):
    """Draws nothing, and its loss is a mean over samples."""

    def training_step(self, batch, batch_idx):
        return self.log_losses((self.encoder.embed(batch) - 1).square().mean())


def probe_on_ranks(folder, *, world):
    data = HalfLabelled(batch_size=16 // world)
    torch.manual_seed(0)
    method = Still(TinyEncoder(data.spec), SGD(lr=0.01, warmup_fraction=0.0))
    probes = OnlineProbes(lr=1e-2, num_neighbors=3, every_n_epochs=1)
    settings = {} if world == 1 else {"devices": world, "strategy": "ddp"}
    run = trainer(folder, probes, epochs=3, **settings)
    fit(run, method, data)
    metrics = {name: float(value) for name, value in run.callback_metrics.items() if "online" in name}
    return {"weights": probes.weights.data, "metrics": metrics}


def main(folder):
    torch.set_num_threads(1)
    torch.save(probe_on_ranks(folder, world=2), f"{folder}/{distributed.rank()}.pt")
