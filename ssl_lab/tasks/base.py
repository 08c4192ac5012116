"""Base class of supervised tasks on an encoder."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ssl_lab.data.base import DataModule
from ssl_lab.methods.base import Method
from ssl_lab.methods.parts.token_mean import TokenMean
from ssl_lab.optim import Optim
from ssl_lab.types import Batch, Encoder, NotOfferedError, Spec


class FineTuning(Method):
    """An encoder of any modality with a head, both trained on labels.

    The loss is a sum over targets divided by their number in the batch of all ranks, and in all batches that are
    accumulated, so it does not depend on how samples are spread over either.

    What is frozen stays as it is to the last bit. An encoder that is frozen as a whole gives the features of evaluation,
    without dropout and with the batch statistics that it came with; in one that is frozen in part, batch normalisation
    whose parameters are frozen keeps its statistics.

    Attributes:
        source_of_classes: What a message says to choose where the last of ``needs_columns`` holds no classes; empty for tasks
            that need none.

    Args:
        encoder: Encoder, pretrained or not.
        optim: Optimizer and schedule; its rate is the head's.
        layer_decay: Factor of the learning rate from each block to the one below it; see ``Layers.lr_scales``.
        freeze: What stays as it is: ``none``, ``embeddings``, ``encoder``, or the number of first blocks.
        dropout: Of what the last layer of the head reads.

    Raises:
        ValueError: If ``layer_decay`` is not in (0, 1] or has no effect, ``dropout`` is no probability below 1, there is
            nothing called ``freeze``, or the data has no classes that the task needs.
    """

    uses_labels: ClassVar[bool] = True
    may_collapse: ClassVar[bool] = False  # features of a class should be alike
    source_of_classes: ClassVar[str] = ""

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        *,
        layer_decay: float = 1.0,
        freeze: str | int = "none",
        dropout: float = 0.0,
    ) -> None:
        if self.takes is not None and not isinstance(encoder.spec, self.takes):
            raise ValueError(
                f"{type(self).__name__} is a task on {self.takes.kind}, but {type(encoder).__name__} was built for "
                f"{encoder.spec}. Choose another task=, such as image_classification for images: see ssl-lab list tasks."
            )
        super().__init__(encoder, optim)
        if not 0 < layer_decay <= 1:
            raise ValueError(
                f"Cannot use method.layer_decay={layer_decay}: it is a factor per layer in (0, 1]. Choose 1 for one "
                "rate, or 0.65 to 0.95."
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"Cannot use method.dropout={dropout}: it is a probability. Choose 0 to below 1.")
        if self.source_of_classes and encoder.spec.classes(self.needs_columns[-1]) is None:
            raise ValueError(
                f"{type(self).__name__} needs data with classes, but this data has none. {self.source_of_classes}, or "
                "choose another task=."
            )
        self.layer_decay = layer_decay
        encoder.layer_groups().freeze(freeze)
        if layer_decay != 1 and self.encoder_is_frozen:
            raise ValueError(
                f"method.layer_decay={layer_decay} has no effect with method.freeze={freeze}: no layer of the encoder "
                "trains. Leave one of them out."
            )
        self._mean = TokenMean()
        self.train()

    def check(self, spec: Spec) -> None:
        """Refuse data that this encoder cannot read for the task.

        Args:
            spec: Facts of the data; the encoder may have been built for other data.

        Raises:
            ValueError: Saying what does not fit.
        """

    def predict(self, datamodule: DataModule, *, device: torch.device) -> list[dict[str, Any]]:
        """Predict the samples of the split ``given``: one row each, in their order.

        A value is a text, a number, a list of texts, numbers by name, or a :class:`~ssl_lab.types.ClassMap`.

        Args:
            datamodule: Data like that of the training, to which the samples were given.
            device: Where to compute.

        Raises:
            NotOfferedError: If the task does not say what its predictions are.
            ValueError: If a prediction is not finite.
        """
        raise NotOfferedError(
            f"Cannot predict with {type(self).__name__}: the task does not say what its predictions are. Give it a method "
            "predict, as the tasks of ssl_lab.tasks have."
        )

    def scores(self, batch: Batch) -> Tensor:
        """Return the head's raw output for a batch, before any decision, as one tensor: the output of an export.

        Raises:
            NotOfferedError: If the task has no such scores.
        """
        raise NotOfferedError(f"the scores of {type(self).__name__} are not one tensor of its inputs")

    def score_names(self) -> tuple[str, ...]:
        """Return the names along the last axis of :meth:`scores`, or for pixels along the axis before their places.

        Raises:
            NotOfferedError: If the task has no such scores.
        """
        raise NotOfferedError(f"the scores of {type(self).__name__} are not one tensor of its inputs")

    def train(self, mode: bool = True) -> Self:
        """Set training mode for all parts that are not frozen."""
        super().train(mode)
        if self.encoder_is_frozen:
            self.encoder.eval()
        for module in self.encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                own = list(module.parameters())
                if own and not any(p.requires_grad for p in own):
                    module.eval()
        return self

    @property
    def encoder_is_frozen(self) -> bool:
        """Return whether no part of the encoder trains."""
        return not any(p.requires_grad for p in self.encoder.parameters())

    @property
    def result_name(self) -> str:
        """Return the name of the trained row in tables."""
        return "fine-tuned encoder"

    def configure_optimizers(self) -> Any:
        """One optimizer; lower layers learn more slowly."""
        optimizer, schedule = self.optim.build(
            self,
            total_steps=self.total_steps,
            lr_scales=self.encoder.layer_groups().lr_scales(self.layer_decay),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def mean_over_targets(self, total: Tensor, count: Tensor) -> Tensor:
        """Log and return the loss: the sum ``total`` over this rank's ``count`` targets, divided by those of all ranks."""
        loss, mean = self._mean(total, count)
        self.log_losses(mean)
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Under accumulation, divide by the targets of all batches instead of the first one's."""
        self._mean.before_optimizer_step(self.parameters())


def full_precision(x: Tensor) -> Tensor:
    """The tensor in fp32 if it had fewer bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
