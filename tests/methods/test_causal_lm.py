from dataclasses import replace

import pytest
import torch
from ranks.fixed import TEXT, packed_sentences, sentences
from transformers import GPT2LMHeadModel

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.methods import causal_lm
from ssl_lab.methods.causal_lm import CausalLM, next_tokens
from ssl_lab.optim import AdamW


def make(spec=TEXT, **settings):
    torch.manual_seed(0)
    return CausalLM(TextTransformer(spec, architecture="gpt2", size="tiny", dropout=0.0, **settings), AdamW(lr=1e-3))


def transformers_model(method):
    model = GPT2LMHeadModel(method.encoder.config).eval()
    model.transformer.load_state_dict(method.encoder.transformer.state_dict())
    return model


def test_the_loss_and_its_gradient_are_those_of_transformers():
    method, batch = make(), sentences(0)
    model = transformers_model(method)
    labels = torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)
    expected = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    loss = method.training_step(batch, 0)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(method.last_loss, expected.detach(), rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    own, theirs = method.encoder.transformer.wte.weight.grad, model.transformer.wte.weight.grad
    torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-6)


def test_a_packed_row_costs_what_its_documents_cost_alone():
    method, batch = make().eval(), packed_sentences(0)
    losses, predicted = method.token_losses(batch)
    for row in range(len(losses)):
        alone = []
        for k in batch["document_ids"][row].unique().tolist():
            ids = batch["input_ids"][row][batch["document_ids"][row] == k].unsqueeze(0)
            if k > 0:
                alone.append(method.token_losses({"input_ids": ids, "attention_mask": torch.ones_like(ids)})[0][0])
        torch.testing.assert_close(losses[row][predicted[row]], torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_the_end_of_a_document_is_predicted_and_the_next_beginning_is_not():
    batch = {
        "input_ids": torch.tensor([[7, 8, 3, 9, 10, 3, 11, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1, 1, 0]]),
        "document_ids": torch.tensor([[1, 1, 1, 2, 2, 2, 3, 0]]),
    }
    assert next_tokens(batch).tolist() == [[8, 3, -100, 10, 3, -100, -100]]
    del batch["document_ids"]
    assert next_tokens(batch).tolist() == [[8, 3, 9, 10, 3, 11, -100]]


def test_no_token_sees_what_follows():
    method = make().eval()
    batch = sentences(0)
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][:, 5] = 63 - changed["input_ids"][:, 5] % 2
    before, after = method.token_losses(batch)[0], method.token_losses(changed)[0]
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4], after[:, 4])


def test_evaluation_in_parts_changes_nothing(monkeypatch):
    method, batch = make().eval(), sentences(0)
    whole = method.token_losses(batch)
    monkeypatch.setattr(causal_lm, "MAX_LOGITS", 1)
    torch.testing.assert_close(method.token_losses(batch), whole)


def test_the_head_is_tied_and_follows_the_embeddings():
    method = make()
    assert method.lm_head.weight is method.encoder.transformer.wte.weight


def test_the_softmax_is_in_fp32_under_bf16():
    method, batch = make(), sentences(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method.training_step(batch, 0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, make().training_step(batch, 0), rtol=2e-2, atol=0)


def test_an_encoder_that_sees_both_sides_is_refused():
    with pytest.raises(ValueError, match="a bert sees both sides of it. Choose encoder=gpt2_mini"):
        CausalLM(TextTransformer(TEXT, size="tiny"), AdamW())


def test_ids_beyond_the_tokenizer_are_no_guesses():
    method = make(replace(TEXT, vocab_size=63))
    guesses = method.pictures({**sentences(0), "input_ids": sentences(0)["input_ids"].clamp(max=62)})[
        "next_words"
    ].guesses
    assert guesses.max() < 63


def test_a_batch_of_single_tokens_predicts_nothing():
    ids = torch.full((2, 1), 7)
    losses, predicted = make().token_losses({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert losses.shape == predicted.shape == (2, 0)
