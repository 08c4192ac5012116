"""Span denoising: write the spans that were cut out of a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ssl_lab.encoders.text_transformer import TextTransformer, padding_mask
from ssl_lab.losses.tokens import IGNORED, token_cross_entropies, token_cross_entropy_sum
from ssl_lab.methods.base import Method
from ssl_lab.methods.parts.captions import CAPTIONS
from ssl_lab.methods.parts.token_mean import TokenMean
from ssl_lab.modalities.text import TextSpec
from ssl_lab.optim import Optim
from ssl_lab.pretext.masking import fixed_draws
from ssl_lab.pretext.span_corruption import Corrupted, SpanCorruption
from ssl_lab.types import Batch, MaskedText, Picture, Spec


@final
class SpanDenoising(Method):
    r"""T5's denoising objective.

    .. math:: \ell = -\frac{1}{N} \sum_t \log p(y_t \mid y_{<t}, \tilde x)

    where :math:`\tilde x` is the text with a sentinel in place of each span that was cut out, y the spans, each after its
    sentinel, and a last sentinel; N counts the tokens of y in the batch of all ranks, and of all that are accumulated.

    Sentinels are extra ids at the end of the model's vocabulary, the last id first: those of the tokenizer if a
    pretrained T5 and its tokenizer have them there, else ids that no text contains. The paper ends y by a last
    sentinel, its code by the token that ends a text; we do the former.

    Args:
        encoder: The encoder stack of a T5.
        optim: Optimizer and schedule.
        noise_density: Share of the tokens that is cut out.
        mean_span: Mean length of a span, in tokens.

    Raises:
        ValueError: If the encoder is no T5's, or the vocabulary has too few ids for sentinels.

    References:
        Raffel et al., Exploring the Limits of Transfer Learning (2020), section 3.1.4. arXiv:1910.10683
    """

    takes: ClassVar[type[Spec] | None] = TextSpec
    may_collapse: ClassVar[bool] = False
    learns_slowly: ClassVar[str] = (
        "Spans are first guessed by the frequency of tokens, and by context after thousands of steps"
    )
    encoder: TextTransformer

    def __init__(
        self, encoder: TextTransformer, optim: Optim, *, noise_density: float = 0.15, mean_span: float = 3.0
    ) -> None:
        super().__init__(encoder, optim)
        if encoder.objective != "denoising":
            raise ValueError(
                f"SpanDenoising needs an encoder with a decoder, which a {encoder.config.model_type} does not have. Choose "
                "encoder=t5_mini or t5_base."
            )
        self.corruption = SpanCorruption(noise_density=noise_density, mean_span=mean_span)
        self.first_sentinel = self._find_sentinels(self.corruption.lengths(encoder.spec.length)[2] + 1)
        self.decoder, self.lm_head = encoder.decoder()
        self._token_mean = TokenMean()

    def _find_sentinels(self, num_sentinels: int) -> int:
        spec, vocab_size = self.encoder.spec, self.encoder.config.vocab_size
        special = set(spec.special_ids) - {spec.pad_id, spec.eos_id, spec.mask_id}
        if self.encoder.pretrained and special.issuperset(spec.vocab_size - 1 - k for k in range(num_sentinels)):
            return spec.vocab_size - 1
        if vocab_size - num_sentinels < spec.vocab_size:
            raise ValueError(
                f"Rows of {spec.length} tokens need {num_sentinels} sentinels, but of the {vocab_size} ids of the model "
                f"{spec.vocab_size} belong to the tokenizer. Lower data.max_length, or raise method.mean_span."
            )
        return int(vocab_size) - 1

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cut spans out, encode the rest, write the spans."""
        _refuse_packed(batch)
        corrupted = self.corruption(batch["input_ids"], batch["attention_mask"], self.encoder.spec, self.first_sentinel)
        total = token_cross_entropy_sum(self.predict(corrupted), corrupted.labels)
        loss, mean = self._token_mean(total, (corrupted.labels != IGNORED).sum())
        self.log_losses(mean)
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Under accumulation, divide by the tokens of all batches."""
        self._token_mean.before_optimizer_step(self.parameters())

    def predict(self, corrupted: Corrupted) -> Tensor:
        """Scores over the vocabulary (B, L_out, V) of each token of the spans, given those before it."""
        hidden = self.encoder(corrupted.input_ids, corrupted.attention_mask)
        before = torch.nn.functional.pad(corrupted.labels[:, :-1], (1, 0), value=IGNORED)
        before = torch.where(before == IGNORED, self.encoder.spec.pad_id or 0, before)
        written = self.decoder(
            input_ids=before,
            encoder_hidden_states=hidden,
            encoder_attention_mask=padding_mask(corrupted.attention_mask, num_queries=before.shape[1]),
            use_cache=False,
        ).last_hidden_state
        if self.encoder.config.scale_decoder_outputs:
            written = written * self.encoder.embed_dim**-0.5
        return self.lm_head(written)  # type: ignore[no-any-return]

    def denoising_losses(self, batch: Batch, seed: int) -> tuple[Tensor, Tensor]:
        """Nats (B, L_out) of the tokens of spans that are a function of (seed, index of the sample), and where they are."""
        corrupted = self._fixed(batch, seed)
        return token_cross_entropies(self.predict(corrupted), corrupted.labels), corrupted.labels != IGNORED

    def _fixed(self, batch: Batch, seed: int) -> Corrupted:
        _refuse_packed(batch)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        draws = fixed_draws(batch["index"], ids.shape[1], seed=seed, num_draws=2)
        return self.corruption.corrupt(ids, mask, self.encoder.spec, self.first_sentinel, draws)

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features, losses on fixed spans, and the whole as one model of transformers."""
        losses = self.in_eval_mode(torch.no_grad()(self.denoising_losses))
        return {**super().capabilities(), "denoising_losses": losses, "language_model": self.language_model}

    def language_model(self) -> Any:
        """Encoder, decoder and head as one model of transformers, in eval mode; a copy."""
        return self.encoder.language_model(self.lm_head, self.decoder)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """Sentences with the model's guess of each token that was cut out, given those before it."""
        rows = {name: column[:4] for name, column in batch.items()}
        corrupted = self._fixed(rows, 0)
        scores = self.in_eval_mode(self.predict)(corrupted)[..., : self.encoder.spec.vocab_size]
        ids, labels = rows["input_ids"], torch.where(corrupted.cut, rows["input_ids"], IGNORED)
        guesses = scores.argmax(-1).gather(1, corrupted.places.clamp(max=scores.shape[1] - 1))
        caption = CAPTIONS["denoised_sentences"]
        return {"denoised_sentences": MaskedText(input_ids=ids, labels=labels, guesses=guesses, caption=caption)}


def _refuse_packed(batch: Batch) -> None:
    """Raise ValueError if a row holds several documents; on a GPU, which is not waited for, its RuntimeError follows."""
    if "document_ids" not in batch:
        return
    message = "SpanDenoising writes the spans of one document, but rows hold several. Set data.packing=false."
    alone = (batch["document_ids"] <= 1).all()
    if alone.is_cuda:
        torch._assert_async(alone, message)
    elif not alone:
        raise ValueError(message)
