from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from ranks.fixed import TEXT, packed_sentences, sentences
from transformers import BertForMaskedLM

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.methods.mlm import MLM
from ssl_lab.optim import AdamW
from ssl_lab.pretext.masking import SpanMasking, TokenMasking, WholeWordMasking

SPEC = replace(TEXT, continues_word=tuple(range(30, 64)))


def make(masking, **settings):
    torch.manual_seed(0)
    return MLM(TextTransformer(SPEC, size="tiny", dropout=0.0, **settings), AdamW(lr=1e-3), masking)


@pytest.mark.parametrize(
    "masking", [TokenMasking(), TokenMasking(exact=True), WholeWordMasking(), SpanMasking(exact=True)]
)
def test_the_loss_and_its_gradient_are_those_of_transformers(masking):
    method, batch = make(masking), sentences(0)
    model = BertForMaskedLM(method.encoder.config)
    model.bert.load_state_dict(method.encoder.transformer.state_dict())
    model.cls.load_state_dict(method.lm_head.state_dict())
    torch.manual_seed(1)
    loss = method.training_step(batch, 0)
    torch.manual_seed(1)
    masked, labels = masking(batch["input_ids"], batch["attention_mask"], SPEC)
    expected = model(input_ids=masked, attention_mask=batch["attention_mask"], labels=labels).loss
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    own = method.encoder.transformer.embeddings.word_embeddings.weight.grad
    torch.testing.assert_close(own, model.bert.embeddings.word_embeddings.weight.grad, rtol=1e-4, atol=1e-6)


def test_with_exact_masks_the_head_sees_as_many_tokens_in_every_step():
    method = make(TokenMasking(mask_prob=0.3, exact=True))
    sizes = []
    method.lm_head.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[:-1])))
    for step in range(3):
        method.training_step(sentences(step), 0)
    assert sizes == [(len(sentences(0)["index"]), 4)] * 3


def test_what_stands_in_another_document_makes_no_difference():
    method, batch = make(TokenMasking()).eval(), packed_sentences(0)
    positions = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    positions[8:, 2] = True
    other = batch["input_ids"].clone()
    other[8:, 8:] = 63 - other[8:, 8:] % 7

    def scores(ids, *documents):
        return method.predict_masked(ids, batch["attention_mask"], positions, *documents)

    torch.testing.assert_close(scores(batch["input_ids"], batch["document_ids"]), scores(other, batch["document_ids"]))
    assert (scores(batch["input_ids"]) - scores(other)).abs().max() > 1e-4


@pytest.mark.parametrize("architecture", ["roberta", "modernbert"])
def test_other_encoders_learn_by_it(architecture):
    method = make(SpanMasking(exact=True), architecture=architecture)
    loss = method.training_step(packed_sentences(0), 0)
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_encoders_of_other_objectives_are_refused(architecture):
    other = {"gpt2": "causal_lm", "t5": "span_denoising"}[architecture]
    with pytest.raises(ValueError, match=f"Choose encoder=bert_mini, .* or method={other}"):
        make(TokenMasking(), architecture=architecture)


def test_whole_words_need_a_tokenizer_that_tells():
    encoder = TextTransformer(TEXT, size="tiny")
    with pytest.raises(ValueError, match="do not tell where words begin"):
        MLM(encoder, AdamW(), WholeWordMasking())


def test_a_new_head_begins_with_the_frequencies_of_tokens():
    method = make(TokenMasking())
    ids = torch.tensor([[SPEC.special_ids[0], 40, 40, 41], [SPEC.special_ids[0], 40, 42, 41]])
    method.begin_with_frequencies(ids)
    bias = method.lm_head.predictions.bias
    assert bias.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    assert bias[40] > bias[41] > bias[42] > bias[43] == bias[SPEC.special_ids[0]]
    total = 6 + 0.5 * len(bias)
    assert bias[40].exp().item() == pytest.approx(3.5 / total)


@pytest.mark.parametrize("pretrained", [False, True])
def test_the_data_that_are_trained_on_are_counted_unless_the_encoder_is_pretrained(pretrained, monkeypatch):
    method = make(TokenMasking())
    method.encoder.pretrained = pretrained
    columns = {"input_ids": torch.full((5, 4), 40)}
    data = SimpleNamespace(train_split="pretrain", columns=lambda split: columns)
    monkeypatch.setattr(MLM, "trainer", SimpleNamespace(datamodule=data))
    method.setup("fit")
    assert (method.lm_head.predictions.bias.argmax().item() == 40) != pretrained
