"""Causal language modelling: predict each token from those before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ssl_lab.devices import keep_random_state
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.losses.tokens import IGNORED, token_cross_entropies, token_cross_entropy_sum
from ssl_lab.methods.base import Method
from ssl_lab.methods.parts.captions import CAPTIONS
from ssl_lab.methods.parts.token_mean import TokenMean
from ssl_lab.modalities.text import TextSpec
from ssl_lab.optim import Optim
from ssl_lab.types import Batch, MaskedText, Picture, Spec

MAX_LOGITS = 2**27  # held at once in evaluation: 512 MiB in fp32


@final
class CausalLM(Method):
    r"""GPT's language modelling.

    .. math:: \ell = -\frac{1}{N} \sum_t \log p(x_t \mid x_{<t})

    over the N tokens of the batch of all ranks, and of all batches that are accumulated. The first token of a row or of a
    document has nothing before it and is not predicted; the token that ends a document is.

    Args:
        encoder: Text encoder that sees what stands before a token: a GPT-2.
        optim: Optimizer and schedule.

    Raises:
        ValueError: If the encoder sees both sides of a token.

    References:
        Radford et al., Improving Language Understanding by Generative Pre-Training (2018).
        Radford et al., Language Models are Unsupervised Multitask Learners (2019).
    """

    takes: ClassVar[type[Spec] | None] = TextSpec
    may_collapse: ClassVar[bool] = False
    learns_slowly: ClassVar[str] = (
        "Tokens are first predicted by their frequency, and by context after thousands of steps"
    )
    encoder: TextTransformer

    def __init__(self, encoder: TextTransformer, optim: Optim) -> None:
        super().__init__(encoder, optim)
        if encoder.objective != "causal":
            raise ValueError(
                f"CausalLM predicts a token from those before it, but a {encoder.config.model_type} sees both sides of it. "
                "Choose encoder=gpt2_mini or gpt2_base, or method=mlm."
            )
        self.lm_head = encoder.lm_head()
        self._token_mean = TokenMean()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Encode, predict the next token everywhere."""
        labels = next_tokens(batch)
        logits = self.lm_head(self._hidden(batch)[:, :-1])
        loss, mean = self._token_mean(token_cross_entropy_sum(logits, labels), (labels != IGNORED).sum())
        self.log_losses(mean)
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Under accumulation, divide by the tokens of all batches."""
        self._token_mean.before_optimizer_step(self.parameters())

    def _hidden(self, batch: Batch) -> Tensor:
        return self.encoder(batch["input_ids"], batch["attention_mask"], batch.get("document_ids"))  # type: ignore[no-any-return]

    def token_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Nats of each token but the first of a row, (B, L - 1), 0 where it is not predicted; and where it is, bool."""
        labels = next_tokens(batch)
        hidden = self._hidden(batch)[:, :-1]
        num_rows = max(1, MAX_LOGITS // (max(1, hidden.shape[1]) * self.encoder.config.vocab_size))
        parts = zip(hidden.split(num_rows), labels.split(num_rows), strict=True)
        losses = [token_cross_entropies(self.lm_head(part), right) for part, right in parts]
        return torch.cat(losses), labels != IGNORED

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features, the loss of each token, continued prompts, and the whole as a model of transformers."""
        return {
            **super().capabilities(),
            "token_losses": self.in_eval_mode(torch.no_grad()(self.token_losses)),
            "generate": self.generate,
            "language_model": self.language_model,
        }

    def language_model(self) -> Any:
        """Encoder and head as one model of transformers, in eval mode; a copy.

        Its ``generate`` never draws what is no text: special tokens but the one that ends a text, and the vocabulary's
        padding.
        """
        model, spec = self.encoder.language_model(self.lm_head), self.encoder.spec
        no_text = {*spec.special_ids, *range(spec.vocab_size, self.encoder.config.vocab_size)} - {spec.eos_id}
        model.generation_config.update(
            suppress_tokens=sorted(no_text), eos_token_id=spec.eos_id, pad_token_id=spec.pad_id
        )
        return model

    def generate(
        self,
        prompt: Tensor,
        *,
        num_samples: int = 1,
        max_new_tokens: int = 50,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Tensor:
        """Token ids that continue a prompt, by ``generate`` of transformers and its cache of keys and values.

        Args:
            prompt: Ids (1, L) for all texts, or (N, L), L > 0.
            num_samples: Number N of texts.
            max_new_tokens: When to stop texts that do not end before.
            temperature: Divides the scores: below 1 likely tokens become likelier; 0 always takes the likeliest.
            top_k: Draw from the k likeliest tokens alone; None for all.
            top_p: Draw from the likeliest tokens that together have this probability (Holtzman et al., 2020,
                arXiv:1904.09751).
            seed: The same seed draws the same texts; the global random state stays as it is.

        Returns:
            Ids (N, at most L + max_new_tokens), padded after the end-of-text token.

        Raises:
            ValueError: If a setting is out of its range.
        """
        if temperature < 0 or not 0 < top_p <= 1 or min(num_samples, max_new_tokens, top_k or 1) < 1 or top_k == 0:
            raise ValueError(
                "Texts are drawn with temperature >= 0, 0 < top_p <= 1, and top_k, num_samples and max_new_tokens of at "
                f"least 1; found temperature={temperature}, top_p={top_p}, top_k={top_k}, num_samples={num_samples}, "
                f"max_new_tokens={max_new_tokens}."
            )
        drawing: dict[str, Any] = {"do_sample": False}
        if temperature > 0:
            drawing = {"do_sample": True, "temperature": temperature, "top_k": top_k or 0, "top_p": top_p}
        prompts = prompt.expand(num_samples, -1)
        with keep_random_state(prompt.device):
            torch.manual_seed(seed)
            return self.language_model().generate(  # type: ignore[no-any-return]
                prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=max_new_tokens, **drawing
            )

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """Sentences with the model's guess of each word from those before it."""
        rows = {name: column[:4] for name, column in batch.items()}
        logits = self.lm_head(self.in_eval_mode(self._hidden)(rows)[..., :-1, :])
        first = rows["input_ids"][:, :1]
        guesses = torch.cat([first, logits[..., : self.encoder.spec.vocab_size].argmax(-1)], dim=1)
        labels = torch.cat([torch.full_like(first, IGNORED), next_tokens(rows)], dim=1)
        caption = CAPTIONS["next_words"]
        return {"next_words": MaskedText(input_ids=rows["input_ids"], labels=labels, guesses=guesses, caption=caption)}


def next_tokens(batch: Batch) -> Tensor:
    """Return the token after each token but the last of its row, int64 (B, L - 1).

    -100 where padding follows, or the first token of another document.
    """
    input_ids, attention_mask, document_ids = (
        batch.get(name) for name in ("input_ids", "attention_mask", "document_ids")
    )
    assert input_ids is not None and attention_mask is not None
    follows = attention_mask[:, 1:] == 1
    if document_ids is not None:
        follows = follows & (document_ids[:, 1:] == document_ids[:, :-1])
    return torch.where(follows, input_ids[:, 1:], IGNORED)
