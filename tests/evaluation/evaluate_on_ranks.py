"""Evaluation shared by W ranks, the metrics and the work of each rank saved by it."""

import torch
import torch.distributed as dist
from arrays import ArrayImages

from ssl_lab import distributed
from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.evaluation.geometry.disentanglement import DCI, MIG
from ssl_lab.evaluation.geometry.label_free import FeatureStd, RankMe, Uniformity
from ssl_lab.evaluation.geometry.view_spread import Alignment, LiDAR
from ssl_lab.evaluation.likelihood.codes import CodePrediction
from ssl_lab.evaluation.likelihood.images import ImportanceNLL, LatentUse
from ssl_lab.evaluation.probes.knn import KNN
from ssl_lab.evaluation.probes.linear import FewLabelProbe, LinearProbe
from ssl_lab.evaluation.samples.quality import SampleQuality
from ssl_lab.tasks.classification import ClassScores

PROTOCOLS = (
    *(KNN(), LinearProbe(), FewLabelProbe(num_draws=2), SampleQuality(num_samples=20)),
    *(RankMe(), Uniformity(), FeatureStd(), Alignment(), LiDAR(), ClassScores()),
    *(ImportanceNLL(num_samples=3, num_images=50), LatentUse(), CodePrediction()),
    *(MIG(num_bins=4), DCI(num_trees=2)),
)
num_images = 0


class FactorImages(ArrayImages):
    """Images whose class is one of two factors."""

    def columns(self, split):
        columns = super().columns(split)
        return {
            **columns,
            "factors": torch.stack([columns["label"], torch.arange(len(columns["label"])) % 3], 1).float(),
        }


def faint_features(batch):
    """Eight pixels, so that no probe is perfect."""
    global num_images
    num_images += len(batch["image"])
    return batch["image"][:, 0, 3:5, 2:6].flatten(1).float()


def faint_views(batch, num_views):
    """The same pixels under noise, counted by nobody."""
    pixels = batch["image"][:, 0, 3:5, 2:6].flatten(1).float()
    return pixels + 10 * torch.randn(num_views, *pixels.shape)


def faint_mean(batch):
    """The mean of the image, counted by nobody."""
    return batch["image"].float().mean((2, 3)) / 255


def all_metrics():
    datamodule = FactorImages(eval_batch_size=10)
    capabilities = {
        "features": faint_features,
        "view_features": faint_views,
        "class_logits": lambda batch: batch["image"][:, 0, 3:5, 2].float(),
        "log_weights": lambda batch, num, generator: torch.randn(num, 1, generator=generator) - faint_mean(batch)[:, 0],
        "code_losses": lambda batch: faint_mean(batch).expand(-1, 3),
        "encode": lambda batch: batch["image"][:, 0, 3:5, 2].float(),
        "latents": lambda batch: (faint_mean(batch), faint_mean(batch).square()),
        "sample": lambda num_samples, generator: torch.rand(num_samples, 1, 8, 8, generator=generator),
    }
    return evaluate(capabilities, PROTOCOLS, datamodule, device=torch.device("cpu"))


def main(folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    metrics = all_metrics()
    torch.save({"metrics": metrics, "num_images": num_images}, f"{folder}/{distributed.rank()}.pt")
    dist.destroy_process_group()
