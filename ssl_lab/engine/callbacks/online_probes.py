"""Classifiers that learn beside the encoder while it trains."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from ssl_lab import distributed
from ssl_lab.data.base import PRETRAIN, has_split
from ssl_lab.engine.callbacks.encoder_tap import EncoderTap
from ssl_lab.engine.checkpoints.sharded import gathered
from ssl_lab.engine.steps import evaluation_due, log_interval, steps_done
from ssl_lab.evaluation.probes.knn import KNN
from ssl_lab.evaluation.probes.linear import logits
from ssl_lab.evaluation.protocol import FeatureSet, features_of
from ssl_lab.methods.base import Method
from ssl_lab.methods.parts.joint_embedding import JointEmbedding
from ssl_lab.types import Batch


class OnlineProbes(Callback):
    """A linear probe and nearest neighbours on the features of training batches: labels seen to, never by the encoder.

    Features are those that the training step computes anyway, detached, so that neither loss nor gradients nor random
    streams change: the encoder ends with the same weights to the last bit. The linear probe starts at zero, reads
    layer-normalised features of all views and has an optimizer of its own (AdamW, constant rate); several processes
    train one and the same probe. Neighbours are sought among the last features of the same epoch, first views only, so
    that no sample meets itself. Rows without a label (-1) are skipped.

    Online probes lag behind the encoder and see augmented images: they show trends early and cheaply, and are no
    substitute for the protocols.

    Metrics: ``online/linear/top1``, accuracy on the training batches of a logging interval before each was learned from;
    ``online/knn/top1``, accuracy on the interval's last batch; ``eval/online_linear/top1``, on the validation split.

    Args:
        lr: Learning rate of the linear probe.
        num_neighbors: Number of neighbours k.
        queue_size: Features among which they are sought.
        every_n_epochs: Epochs between two looks at the validation split.
    """

    def __init__(
        self, *, lr: float = 3e-3, num_neighbors: int = 20, queue_size: int = 4096, every_n_epochs: int = 10
    ) -> None:
        self.lr = lr
        self.knn = KNN(num_neighbors=(num_neighbors,))
        self.queue_size = queue_size
        self.every_n_epochs = every_n_epochs
        self._restored: dict[str, Any] | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Build the probes, or restore those of the checkpoint, and listen to the encoder.

        Raises:
            ValueError: If the training data has no labels.
        """
        assert isinstance(pl_module, Method)
        data, encoder, device = trainer.datamodule, pl_module.encoder, pl_module.device  # type: ignore[attr-defined]
        if data.spec.num_classes is None or "label" not in data.columns(PRETRAIN):
            raise ValueError(
                f"OnlineProbes read labels beside training, but the training split of {type(data).__name__} has none. Use "
                "callbacks=none, or data with labels."
            )
        self._num_classes = data.spec.num_classes
        self._tap = EncoderTap(encoder)
        self.weights = nn.Parameter(torch.zeros(self._num_classes, encoder.embed_dim + 1, device=device))
        self._optimizer = torch.optim.AdamW([self.weights], lr=self.lr, weight_decay=0.0)
        self._counts = torch.zeros(2, device=device)  # correct and labelled rows of this logging interval
        self._queue_x = torch.zeros(self.queue_size, encoder.embed_dim, device=device)
        self._queue_y = torch.full((self.queue_size,), -1, device=device)
        self._place, self._epoch = 0, 0
        if self._restored is not None:
            self._restore(self._restored)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop listening."""
        self._tap.remove()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Predict the batch, then learn from it.

        Raises:
            ValueError: If the method does not run its encoder as a whole.
        """
        assert isinstance(pl_module, Method)
        features = self._tap.take()
        if features is None:
            raise ValueError(
                f"OnlineProbes listen to the encoder's forward pass, but {type(pl_module).__name__} does not run "
                f"{type(pl_module.encoder).__name__} as a whole in training. Use callbacks=none; the protocols of "
                "evaluation= work."
            )
        y = batch["label"]
        # Without views, further rows are no samples of the batch: a GAN's discriminator also sees generated images.
        num_views = len(features) // len(y) if isinstance(pl_module, JointEmbedding) else 1
        self._learn(features[: num_views * len(y)], y.repeat(num_views))
        if self._epoch != trainer.current_epoch:
            self._epoch = trainer.current_epoch
            self._queue_y.fill_(-1)
        if steps_done(trainer) % log_interval(trainer) == 0:
            pl_module.log_dict(self._accuracies(features[: len(y)], y))
        self._remember(distributed.gather(features[: len(y)]), distributed.gather(y))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score the linear probe on the validation split if it is time."""
        assert isinstance(pl_module, Method)
        data = trainer.datamodule  # type: ignore[attr-defined]
        if has_split(data, "val") and evaluation_due(trainer, self.every_n_epochs):
            method = gathered(trainer, pl_module)
            embed = method.in_eval_mode(method.encoder.embed)
            x, y = features_of(embed, data, "val", device=pl_module.device)
            correct = self._scores(x).argmax(1) == y
            pl_module.log("eval/online_linear/top1", correct[y >= 0].float().mean())

    def _scores(self, features: Tensor) -> Tensor:
        return logits(self.weights, F.layer_norm(features, features.shape[1:]))

    def _learn(self, features: Tensor, y: Tensor) -> None:
        """One step on the mean cross entropy over the labelled rows of all ranks."""
        scores = self._scores(features)
        labelled = (y >= 0).sum()
        self._counts += torch.stack([(scores.argmax(1) == y).sum(), labelled])
        (gradient,) = torch.autograd.grad(F.cross_entropy(scores, y, ignore_index=-1, reduction="sum"), self.weights)
        self.weights.grad = distributed.reduce_sum(gradient) / distributed.reduce_sum(labelled).clamp(min=1)
        self._optimizer.step()

    def _accuracies(self, features: Tensor, y: Tensor) -> dict[str, float]:
        """Of the linear probe since the last time and of the neighbours on this batch, over all ranks; if defined."""
        known = self._queue_y >= 0
        counts = torch.zeros(2, device=y.device)
        if known.any() and (y >= 0).any():  # at the first step there are no neighbours yet
            neighbors = FeatureSet(
                train_x=self._queue_x[known],
                train_y=self._queue_y[known],
                test_x=features[y >= 0],
                test_y=y[y >= 0],
                num_classes=self._num_classes,
            )
            predictions = self.knn.predict(neighbors, self.knn.num_neighbors[0])
            counts += torch.stack([(predictions == neighbors.test_y).sum(), (y >= 0).sum()])
        found = {"online/linear/top1": self._counts, "online/knn/top1": counts}
        totals = {name: distributed.reduce_sum(count).tolist() for name, count in found.items()}
        self._counts.zero_()
        return {name: correct / total for name, (correct, total) in totals.items() if total}

    def _remember(self, x: Tensor, y: Tensor) -> None:
        x, y = x[-self.queue_size :], y[-self.queue_size :]
        rows = (self._place + torch.arange(len(y), device=y.device)) % self.queue_size
        self._queue_x[rows], self._queue_y[rows] = x, y
        self._place = (self._place + len(y)) % self.queue_size

    def state_dict(self) -> dict[str, Any]:
        """Probe, optimizer, queue and counts, for the checkpoint."""
        return {
            "weights": self.weights.data,
            "optimizer": self._optimizer.state_dict(),
            "counts": self._counts,
            "queue": [self._queue_x, self._queue_y, self._place, self._epoch],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts."""
        self._restored = state_dict

    def _restore(self, state: dict[str, Any]) -> None:
        self.weights.data.copy_(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr
        self._counts.copy_(state["counts"])
        queue_x, queue_y, self._place, self._epoch = state["queue"]
        if queue_x.shape != self._queue_x.shape:
            raise ValueError(
                f"Cannot resume OnlineProbes with a queue of {len(self._queue_x)} features: the checkpoint's has "
                f"{len(queue_x)}. Restore callbacks.online_probes.queue_size, or start a new run."
            )
        self._queue_x.copy_(queue_x)
        self._queue_y.copy_(queue_y)
