"""Masked language modelling: predict hidden tokens from both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from ssl_lab import distributed
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.losses.masked import masked_cross_entropy_sum
from ssl_lab.methods.base import Method
from ssl_lab.optim import Optim
from ssl_lab.types import Batch, MaskedText, Modality, Picture


@final
class MLM(Method):
    """BERT's masked language modelling with masks drawn anew for every batch.

    The loss is the cross entropy summed over masked tokens and divided by their number in the batch of all ranks, and in
    all batches that are accumulated, so it does not depend on how samples are spread over either. The head runs on
    masked positions only.

    Args:
        encoder: Text encoder.
        optim: Optimizer and schedule.
        masking: Hides tokens of a batch: (input_ids, attention_mask, spec) to (corrupted ids, labels).

    References:
        Devlin et al., BERT (2018). arXiv:1810.04805
    """

    modality: ClassVar[Modality] = "text"

    def __init__(self, encoder: TextTransformer, optim: Optim, masking: nn.Module) -> None:
        super().__init__(encoder, optim)
        if encoder.spec.mask_id is None:
            raise ValueError("Masked language modelling needs a tokenizer with a mask token; this one has none.")
        self.masking = masking
        self._num_masked: list[Tensor] = []  # of each batch since the last optimizer step
        self.lm_head = encoder.lm_head()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mask, encode, predict the masked tokens."""
        input_ids, labels = self.masking(batch["input_ids"], batch["attention_mask"], self.encoder.spec)
        chosen = labels != -100
        logits = self.predict_masked(input_ids, batch["attention_mask"], chosen)
        total = masked_cross_entropy_sum(logits, labels[chosen])
        num_masked = distributed.reduce_sum(chosen.sum()).clamp(min=1)
        self._num_masked.append(num_masked)
        self.log_losses(distributed.reduce_sum(total) / num_masked)
        return total * distributed.world_size() / self._num_masked[0]

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Under accumulation, divide by the masked tokens of all batches instead of the first one's."""
        counts, self._num_masked = torch.stack(self._num_masked), []
        if len(counts) > 1:
            for p in self.parameters():
                if p.grad is not None:
                    p.grad.mul_(counts[0] / counts.double().mean())

    def predict_masked(self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor) -> Tensor:
        """Scores over the vocabulary (M, V) at the M chosen positions of a batch (B, L)."""
        hidden = self.encoder(input_ids, attention_mask)
        return self.lm_head(hidden[positions])  # type: ignore[no-any-return]

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features, predictions at masked positions, and the whole as one model of transformers."""
        return {
            **super().capabilities(),
            "predict_masked": self.in_eval_mode(torch.no_grad()(self.predict_masked)),
            "language_model": self.language_model,
        }

    def language_model(self) -> Any:
        """Encoder and head as one model of transformers, in eval mode; it shares their parameters."""
        return self.encoder.language_model(self.lm_head)  # type: ignore[operator]

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """Masked sentences with the model's guesses."""
        rows = {name: column[:4] for name, column in batch.items()}
        masked, labels = self.masking(rows["input_ids"], rows["attention_mask"], self.encoder.spec)
        everywhere = torch.ones_like(masked, dtype=torch.bool)
        guesses = self.in_eval_mode(self.predict_masked)(masked, rows["attention_mask"], everywhere).argmax(-1)
        return {"masked_sentences": MaskedText(input_ids=masked, labels=labels, guesses=guesses.view_as(masked))}
