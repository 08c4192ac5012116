import math
from dataclasses import replace

import pytest
import torch
from arrays import ArrayText
from ranks.fixed import TEXT, packed_sentences, sentences
from transformers import T5ForConditionalGeneration

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.evaluation.likelihood.denoising import Denoising
from ssl_lab.methods.span_denoising import SpanDenoising
from ssl_lab.optim import AdamW


def make(spec=TEXT, **settings):
    torch.manual_seed(0)
    encoder = TextTransformer(spec, architecture="t5", size="tiny", dropout=0.0, **settings)
    return SpanDenoising(encoder, AdamW(lr=1e-3), noise_density=0.4)


def test_the_loss_and_its_gradient_are_those_of_transformers():
    method, batch = make(), sentences(0)
    model = T5ForConditionalGeneration(method.encoder.config)
    model.encoder.load_state_dict(method.encoder.transformer.state_dict())
    model.decoder.load_state_dict(method.decoder.state_dict())
    torch.manual_seed(1)
    loss = method.training_step(batch, 0)
    torch.manual_seed(1)
    found = method.corruption(batch["input_ids"], batch["attention_mask"], TEXT, method.first_sentinel)
    expected = model(input_ids=found.input_ids, attention_mask=found.attention_mask, labels=found.labels).loss
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    own = method.encoder.transformer.embed_tokens.weight.grad
    torch.testing.assert_close(own, model.shared.weight.grad, rtol=1e-4, atol=1e-5)


def test_encoder_decoder_and_head_share_their_embeddings():
    method = make()
    shared = method.encoder.transformer.embed_tokens.weight
    assert method.decoder.embed_tokens.weight is shared and method.lm_head.weight is shared


def test_sentinels_are_ids_that_no_text_contains():
    method = make()
    assert method.first_sentinel == method.encoder.config.vocab_size - 1 >= TEXT.vocab_size + 99
    found = method.corruption(*(sentences(0)[n] for n in ("input_ids", "attention_mask")), TEXT, method.first_sentinel)
    assert found.input_ids.max() == method.first_sentinel


def test_a_pretrained_model_uses_its_tokenizers_sentinels_or_says_that_there_is_no_room(tmp_path):
    own = make().encoder._language_model()
    own.save_pretrained(tmp_path)
    vocab_size = own.config.vocab_size
    extra = replace(TEXT, vocab_size=vocab_size, special_ids=(0, 1, 2, 3, 4, *range(vocab_size - 20, vocab_size)))
    smaller = replace(extra, vocab_size=vocab_size - 5)
    assert make(smaller, pretrained=str(tmp_path)).first_sentinel == vocab_size - 6
    assert make(pretrained=str(tmp_path)).first_sentinel == vocab_size - 1
    with pytest.raises(ValueError, match="need 3 sentinels"):
        make(replace(TEXT, vocab_size=vocab_size), pretrained=str(tmp_path))


def test_losses_of_fixed_spans_depend_on_sample_and_seed_alone():
    method = make(ArrayText().spec)
    run = method.capabilities()["denoising_losses"]
    results = []
    for size in (1, 7, 64):
        results.append(Denoising().run(run, ArrayText(eval_batch_size=size), device=torch.device("cpu"), split="val"))
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    assert results[0] == pytest.approx(results[2], rel=1e-5)
    assert results[0]["denoising/perplexity"] == pytest.approx(math.exp(results[0]["denoising/loss"]))
    other = Denoising(seed=1).run(run, ArrayText(), device=torch.device("cpu"), split="val")
    assert other["denoising/loss"] != pytest.approx(results[0]["denoising/loss"], rel=1e-5)


def test_packed_rows_and_other_encoders_are_refused():
    with pytest.raises(ValueError, match="Set data.packing=false"):
        make().training_step(packed_sentences(0), 0)
    method = make()
    method.training_step(sentences(0), 0)
    with pytest.raises(ValueError, match="Set data.packing=false"):  # not only in the first batch
        method.training_step(packed_sentences(1), 1)
    with pytest.raises(ValueError, match="a bert does not have. Choose encoder=t5_mini"):
        SpanDenoising(TextTransformer(TEXT, size="tiny"), AdamW())
