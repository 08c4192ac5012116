"""Write a text in another language: decoder, loss, translations, and their scores."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, ClassVar, final, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertConfig, BertLMHeadModel, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from ssl_lab.data.base import GIVEN, DataModule
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.evaluation.protocol import Protocol, check_none_broken, outputs_of
from ssl_lab.extras import needed_to
from ssl_lab.modalities.text import WrittenText
from ssl_lab.optim import Optim
from ssl_lab.tasks.base import full_precision
from ssl_lab.tasks.metrics import TRANSLATIONS_METRICS
from ssl_lab.tasks.text import TextTask, trim
from ssl_lab.types import Batch

with needed_to("score translations (task=translation)"):
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

# What transformers calls the states of earlier tokens: since 5.24, and before.
CACHE = "cache" if "cache" in signature(BertLMHeadModel.prepare_inputs_for_generation).parameters else "past_key_values"


@final
class Translation(TextTask):
    r"""The encoder and a new transformer decoder that attends to its states, trained by teacher forcing.

    .. math:: L = -\frac1N \sum_t \sum_k q_t(k) \log p(k \mid y_{<t}, x)

    over the N tokens of the translations, where q puts 1 - epsilon on the right token and epsilon on all alike
    (``label_smoothing``). The decoder is as wide as the encoder and begins with random weights.

    Args:
        encoder: Text encoder.
        optim: Optimizer and schedule.
        layer_decay: Factor of the learning rate from each block of the encoder to the one below it.
        freeze: ``none``, ``embeddings``, ``encoder``, or the number of first blocks of the encoder.
        dropout: In attention and hidden layers of the decoder.
        num_decoder_layers: Blocks of the decoder; None for as many as the encoder has.
        label_smoothing: epsilon.
        num_beams: Beams of the search that writes translations; 1 is greedy.

    Raises:
        ValueError: If the data has no translations or a setting makes no sense.

    References:
        Vaswani et al., Attention Is All You Need (2017). arXiv:1706.03762
        Rothe et al., Leveraging Pre-trained Checkpoints for Sequence Generation Tasks (2020). arXiv:1907.12461
    """

    needs_columns: ClassVar[tuple[str, ...]] = ("target_input_ids",)
    columns_from: ClassVar[Mapping[str, str]] = {
        "target_input_ids": "data=parallel_text for texts and their translations"
    }

    def __init__(
        self,
        encoder: TextTransformer,
        optim: Optim,
        *,
        layer_decay: float = 1.0,
        freeze: str | int = "none",
        dropout: float = 0.1,
        num_decoder_layers: int | None = None,
        label_smoothing: float = 0.1,
        num_beams: int = 1,
    ) -> None:
        super().__init__(encoder, optim, layer_decay=layer_decay, freeze=freeze, dropout=dropout)
        written = encoder.spec.targets.get("target_input_ids")
        if not isinstance(written, WrittenText):
            raise ValueError(
                "Translation needs texts with translations, but this data has none. Choose data=parallel_text, or another "
                "task=."
            )
        if not 0 <= label_smoothing < 1 or num_beams < 1 or (num_decoder_layers or 1) < 1:
            raise ValueError(
                f"label_smoothing={label_smoothing}, num_beams={num_beams} and num_decoder_layers={num_decoder_layers} were "
                "asked for. Choose a share below 1, and numbers of at least 1."
            )
        self.label_smoothing = label_smoothing
        self.num_beams = num_beams
        sizes = encoder.transformer.config
        config = BertConfig(
            vocab_size=written.vocab_size,
            hidden_size=encoder.embed_dim,
            num_hidden_layers=num_decoder_layers or sizes.num_hidden_layers,
            num_attention_heads=sizes.num_attention_heads,
            intermediate_size=4 * encoder.embed_dim,
            max_position_embeddings=written.length,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            pad_token_id=written.pad_id,
            bos_token_id=written.begin_id,
            eos_token_id=written.end_id,
            is_decoder=True,
            add_cross_attention=True,
        )
        config._attn_implementation = "sdpa"
        self.decoder = BertLMHeadModel(config)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Encode, and predict each token of the translation from those before it."""
        batch = trim(batch)
        target, mask = batch["target_input_ids"], batch["target_attention_mask"]
        length = int(mask.sum(1).max())
        target, mask = target[:, :length], mask[:, :length]
        hidden = self.decoder.bert(
            input_ids=target[:, :-1],
            attention_mask=mask[:, :-1],
            encoder_hidden_states=self.hidden(batch),
            encoder_attention_mask=batch["attention_mask"],
            use_cache=False,
        ).last_hidden_state
        known = mask[:, 1:] == 1
        logits = full_precision(self.decoder.cls(hidden[known]))
        total = F.cross_entropy(logits, target[:, 1:][known], label_smoothing=self.label_smoothing, reduction="sum")
        return self.mean_over_targets(total, known.sum())

    def translate(self, batch: Batch) -> Tensor:
        """Ids (B, T) of translations, begin token first, padding after the end; all -1 where scores are not finite."""
        batch = trim(batch)
        decoder: Any = self.decoder
        config = decoder.config
        watch = _BrokenScores(len(batch["input_ids"]), self.device)
        written: Tensor = decoder.generate(
            input_ids=torch.full((len(batch["input_ids"]), 1), config.bos_token_id, device=self.device),
            encoder_hidden_states=self.hidden(batch),
            encoder_attention_mask=batch["attention_mask"],
            **{CACHE: EncoderDecoderCache(DynamicCache(), DynamicCache())},
            max_length=config.max_position_embeddings,
            num_beams=self.num_beams,
            do_sample=False,
            logits_processor=LogitsProcessorList([watch]),
        )
        written = written.masked_fill(watch.found.unsqueeze(1), -1)
        missing = config.max_position_embeddings - written.shape[1]
        return F.pad(written, (0, missing), value=config.pad_token_id)

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features, and translations."""
        return {**super().capabilities(), "translations": self.in_eval_mode(torch.no_grad()(self.translate))}

    def predict(self, datamodule: DataModule, *, device: torch.device) -> list[dict[str, Any]]:
        """The translation of each text."""
        assert isinstance(datamodule, TranslatedTexts)
        texts = _written(self.capabilities()["translations"], datamodule, GIVEN, device=device, use="written")
        return [{"translation": text} for text in texts]


class _BrokenScores(LogitsProcessor):
    """Remembers the samples that had scores that are not finite, and changes none."""

    def __init__(self, num_samples: int, device: torch.device) -> None:
        self.found = torch.zeros(num_samples, dtype=torch.bool, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores (B x beams, V) as they are."""
        self.found |= (~scores.amax(-1).isfinite()).view(len(self.found), -1).any(-1)
        return scores


@runtime_checkable
class TranslatedTexts(typing.Protocol):
    """Data whose rows are texts with a translation each."""

    @property
    def target_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the translations."""

    def references(self, split: str) -> list[str]:
        """The translations of a split as people wrote them."""


def _written(
    fn: Callable[[Batch], Tensor], datamodule: Any, split: str, *, device: torch.device, use: str = "judged"
) -> list[str]:
    """The texts of the token ids ``fn(batch) -> (B, T)``; -1 is that of scores that are not finite.

    Raises:
        ValueError: If a translation has such scores.
    """
    (ids,) = outputs_of(lambda batch: (fn(batch),), datamodule, split, device=device)
    kind = "" if split == GIVEN else split
    check_none_broken(int((ids < 0).any(1).sum()), len(ids), kind, what="Scores", unit="translations", use=use)
    return [text.strip() for text in datamodule.target_tokenizer.batch_decode(ids, skip_special_tokens=True)]


class Translations(Protocol):
    """BLEU and chrF of the whole split by sacreBLEU, on text without tokens, with one reference a sentence.

    Metrics: ``finetune/bleu``, ``finetune/chrf``, from 0 to 100 as they are usually written. ``signature`` says how they were
    computed once they were.

    References:
        Post, A Call for Clarity in Reporting BLEU Scores (2018). arXiv:1804.08771
        Popovic, chrF: character n-gram F-score for automatic MT evaluation (2015). aclanthology.org/W15-3049
    """

    metrics = TRANSLATIONS_METRICS
    needs: ClassVar[str] = "translations"
    needs_columns: ClassVar[tuple[str, ...]] = ("target_input_ids",)
    columns_from = Translation.columns_from
    needs_data: ClassVar[type | None] = TranslatedTexts
    shared: ClassVar[bool] = True

    def run(
        self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device, split: str = "test"
    ) -> dict[str, float]:
        """Score the token ids ``fn(batch) -> (B, T)``; -1 is that of scores that are not finite.

        Raises:
            ValueError: If a translation has such scores.
        """
        assert isinstance(datamodule, TranslatedTexts)
        texts = _written(fn, datamodule, split, device=device)
        references = [datamodule.references(split)]
        bleu, chrf = BLEU(), CHRF()
        found = {
            "finetune/bleu": float(bleu.corpus_score(texts, references).score),
            "finetune/chrf": float(chrf.corpus_score(texts, references).score),
        }
        self.signature = f"BLEU {bleu.get_signature()}; chrF {chrf.get_signature()}"
        return found
