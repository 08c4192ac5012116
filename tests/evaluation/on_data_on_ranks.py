"""Protocols on data of their own, shared by W ranks, the metrics saved by each."""

import torch
import torch.distributed as dist
from arrays import ArrayImages
from evaluation.evaluate_on_ranks import FactorImages, faint_features

from ssl_lab import distributed
from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.evaluation.geometry.disentanglement import MIG
from ssl_lab.evaluation.on_data import OnData
from ssl_lab.evaluation.probes.knn import KNN
from ssl_lab.evaluation.probes.linear import FewLabelProbe
from ssl_lab.evaluation.protocol import StreamingProtocol
from ssl_lab.metrics import Metric, Table


class Bright(StreamingProtocol):
    """A protocol of somebody else, with sums over batches."""

    needs = "features"
    metrics = {
        "bright/mean_k#": Metric(column="mean of {0}", table=Table(key="bright", title="Brightness")),
        "bright/max": Metric(column="largest", panel="values", table=Table(key="bright", title="Brightness")),
    }

    def update(self, fn, batch, prepared):
        pixels = fn(batch)[:, :5]
        return {"sum": pixels.sum(), "count": torch.tensor(pixels.numel()), "large": (pixels > 200).sum()}

    def compute(self, sums, datamodule, split):
        return {"bright/mean_k5": float(sums["sum"] / sums["count"]), "bright/max": float(sums["large"])}


def all_metrics():
    other = FactorImages(eval_batch_size=7, num_samples=50)
    capabilities = {
        "features": faint_features,
        "encode": lambda batch: batch["image"][:, 0, 3:5, 2].float(),
    }
    protocols = [KNN(), *(OnData(p, data=other, name="o") for p in (KNN(), FewLabelProbe(num_draws=2), Bright()))]
    protocols.append(OnData(MIG(num_bins=4), data=other, name="o", every_n_epochs=7))
    return evaluate(capabilities, protocols, ArrayImages(eval_batch_size=10), device=torch.device("cpu"))


def main(folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.save(all_metrics(), f"{folder}/{distributed.rank()}.pt")
    dist.destroy_process_group()
