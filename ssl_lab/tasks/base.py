"""What every supervised task on a text encoder has in common."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.methods.base import Method
from ssl_lab.methods.parts.token_mean import TokenMean
from ssl_lab.optim import Optim
from ssl_lab.types import Batch, Modality


class FineTuning(Method):
    """A text encoder with a head, both trained on labels.

    The loss is a sum over targets divided by their number in the batch of all ranks, and in all batches that are
    accumulated, so it does not depend on how samples are spread over either.

    Args:
        encoder: Text encoder, pretrained or not.
        optim: Optimizer and schedule; its rate is the head's.
        layer_decay: Factor of the learning rate from each block to the one below it; see ``Layers.lr_scales``.
        freeze: What stays as it is: ``none``, ``embeddings``, ``encoder``, or the number of first blocks.

    Raises:
        ValueError: If ``layer_decay`` is not in (0, 1] or there is nothing called ``freeze``.
    """

    modality: ClassVar[Modality] = "text"
    uses_labels: ClassVar[bool] = True
    encoder: TextTransformer

    def __init__(
        self, encoder: TextTransformer, optim: Optim, *, layer_decay: float = 1.0, freeze: str | int = "none"
    ) -> None:
        super().__init__(encoder, optim)
        if not 0 < layer_decay <= 1:
            raise ValueError(
                f"Cannot use method.layer_decay={layer_decay}: it is a factor per layer in (0, 1]. Choose 1 for one "
                "rate, or 0.65 to 0.95."
            )
        self.layer_decay = layer_decay
        encoder.layer_groups().freeze(freeze)
        self._mean = TokenMean()

    @property
    def result_name(self) -> str:
        """What tables call the row of what was trained."""
        return "fine-tuned encoder"

    def configure_optimizers(self) -> Any:
        """One optimizer; lower layers learn more slowly."""
        optimizer, schedule = self.optim.build(
            self,
            total_steps=self.total_steps,
            lr_scales=self.encoder.layer_groups().lr_scales(self.layer_decay),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def hidden(self, batch: Batch) -> Tensor:
        """Hidden states (B, L, D); BERT also reads ``token_type_ids`` where the batch has them."""
        types = batch.get("token_type_ids")
        return self.encoder(batch["input_ids"], batch["attention_mask"], token_type_ids=types)  # type: ignore[no-any-return]

    def mean_over_targets(self, total: Tensor, count: Tensor) -> Tensor:
        """Log and return the loss: the sum ``total`` over this rank's ``count`` targets, divided by those of all ranks."""
        loss, mean = self._mean(total, count)
        self.log_losses(mean)
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Under accumulation, divide by the targets of all batches instead of the first one's."""
        self._mean.before_optimizer_step(self.parameters())


def trim(batch: Batch, *names: str, multiple: int = 8) -> dict[str, Tensor]:
    """On the CPU, the batch without the last columns that are padding in all of its rows; a GPU would have to be waited for.

    Args:
        batch: With ``input_ids`` and ``attention_mask`` (B, L).
        names: Further columns (B, L, ...) to cut alike.
        multiple: The length that is left is a multiple of it, or L.
    """
    if batch["attention_mask"].device.type != "cpu":
        return dict(batch)
    longest = max(1, int(batch["attention_mask"].sum(1).max()))
    length = min(batch["input_ids"].shape[1], -(-longest // multiple) * multiple)
    cut = ("input_ids", "attention_mask", "token_type_ids", *names)
    return {name: column[:, :length] if name in cut else column for name, column in batch.items()}


def full_precision(x: Tensor) -> Tensor:
    """The tensor in fp32 if it had fewer bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_dropout(dropout: float) -> None:
    """Raise ValueError unless it is a probability below 1."""
    if not 0 <= dropout < 1:
        raise ValueError(f"Cannot use method.dropout={dropout}: it is a probability. Choose 0 to below 1.")
