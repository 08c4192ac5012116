from dataclasses import replace

import pytest
import torch
from ranks.fixed import TEXT, sentences
from torch import nn
from transformers import ElectraConfig, ElectraForMaskedLM

from ssl_lab.encoders.text_configs import ARCHITECTURES
from ssl_lab.encoders.text_transformer import TextTransformer

LONG = replace(TEXT, length=200)  # longer than ModernBERT's window
DOCUMENTS = ((100, 70, 20), (1, 150, 49))  # lengths in two packed rows


def test_mean_pooling_leaves_padding_out():
    encoder = TextTransformer(TEXT, size="tiny").eval()
    batch = sentences(0)
    longer = {name: nn.functional.pad(batch[name], (0, 5)) for name in ("input_ids", "attention_mask")}
    torch.testing.assert_close(encoder.embed(longer), encoder.embed(batch), rtol=1e-4, atol=1e-5)
    hidden = encoder(batch["input_ids"], batch["attention_mask"])
    torch.testing.assert_close(encoder.embed(batch)[0], hidden[0, :6].mean(0))


def test_first_pooling_is_the_state_of_the_class_token():
    encoder = TextTransformer(TEXT, size="tiny", pooling="first").eval()
    batch = sentences(0)
    assert torch.equal(encoder.embed(batch), encoder(batch["input_ids"], batch["attention_mask"])[:, 0])


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match=r"no pooling 'max'. Choose encoder.pooling from \['mean', 'first', 'last'\]"):
        TextTransformer(TEXT, pooling="max")


def test_the_attention_kernel_does_not_drop_dropout():
    """Dropout of attention weights alone must tell two passes apart in training, and be off in evaluation."""
    encoder = TextTransformer(TEXT, size="tiny", dropout=0.1)
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Dropout) and not name.endswith("attention.self.dropout"):
            module.p = 0.0
    batch = sentences(0)
    first, second = (encoder.train().embed(batch) for _ in range(2))
    assert ((first - second).abs().amax(1) > 1e-4).all()
    first, second = (encoder.eval().embed(batch) for _ in range(2))
    assert torch.equal(first, second)


def encoder_of(architecture, **settings):
    torch.manual_seed(0)
    return TextTransformer(LONG, **{"architecture": architecture, "size": "tiny", **settings}).eval()


def packed():
    """Two rows of 200 tokens with three documents each; the first ends with ten of padding."""
    ids = torch.randint(5, 64, (2, 200), generator=torch.Generator().manual_seed(0))
    document_ids = torch.zeros(2, 200, dtype=torch.int64)
    for row, lengths in enumerate(DOCUMENTS):
        start = 0
        for k, length in enumerate(lengths, start=1):
            document_ids[row, start : start + length] = k
            start += length
    ids[document_ids == 0] = LONG.pad_id
    return ids, (document_ids > 0).long(), document_ids


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_packed_document_has_the_states_it_has_alone(architecture):
    encoder = encoder_of(architecture)
    ids, mask, document_ids = packed()
    together = encoder(ids, mask, document_ids)
    for row, lengths in enumerate(DOCUMENTS):
        for k in range(1, len(lengths) + 1):
            own = ids[row][document_ids[row] == k].unsqueeze(0)
            alone = encoder(own, torch.ones_like(own))
            torch.testing.assert_close(together[row][document_ids[row] == k], alone[0], rtol=1e-5, atol=1e-5)
    assert (together - encoder(ids, mask))[1].abs().amax() > 1e-3  # and others if documents are mixed


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_states_are_those_of_transformers(architecture, padded):
    encoder = encoder_of(architecture)
    model = encoder._language_model()
    model = (model.encoder if architecture == "t5" else model.base_model).eval()
    model.load_state_dict(encoder.transformer.state_dict())
    model.set_attn_implementation("eager")
    ids = torch.randint(5, 64, (2, 200), generator=torch.Generator().manual_seed(0))
    if padded:
        ids[0, 120:] = LONG.pad_id
    mask = (ids != LONG.pad_id).long()
    expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(encoder(ids, mask)[mask == 1], expected[mask == 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_mask_reaches_the_kernel_without_padding(architecture, monkeypatch):
    masks = []
    kernel = nn.functional.scaled_dot_product_attention

    def spy(*args, attn_mask=None, **kwargs):
        masks.append((attn_mask, kwargs.get("is_causal", False)))
        return kernel(*args, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    ids = torch.randint(5, 64, (2, 50))
    encoder_of(architecture)(ids, torch.ones_like(ids))
    assert len(masks) == 2
    causal = architecture == "gpt2"
    if architecture != "t5":  # whose mask is its position bias
        assert all(mask is None and is_causal == causal for mask, is_causal in masks)
    masks.clear()
    encoder_of(architecture)(ids, (torch.arange(50) < 30).long().expand(2, -1))
    assert all((mask is None) == causal for mask, _ in masks)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_reach_all_parameters_of_packed_rows(architecture):
    encoder = encoder_of(architecture)
    encoder(*packed()).square().sum().backward()
    unused = {name for name, p in encoder.named_parameters() if p.grad is None}
    assert not unused


def test_last_pooling_is_the_state_of_the_last_real_token():
    encoder = encoder_of("gpt2", pooling="last")
    batch = sentences(0)
    hidden = encoder(batch["input_ids"], batch["attention_mask"])
    features = encoder.embed(batch)
    assert torch.equal(features[0], hidden[0, 5]) and torch.equal(features[-1], hidden[-1, 11])
    with pytest.raises(ValueError, match="nothing but itself.*encoder.pooling=last"):
        encoder_of("gpt2", pooling="first")


def test_features_of_packed_rows_are_refused_and_the_spread_is_that_of_first_documents():
    encoder = encoder_of("bert")
    ids, mask, document_ids = packed()
    with pytest.raises(ValueError, match="data.packing=false"):
        encoder.embed({"input_ids": ids, "attention_mask": mask, "document_ids": document_ids})
    inputs = ids, mask, document_ids
    first = encoder.embed({"input_ids": ids[:1, :100], "attention_mask": mask[:1, :100]})
    torch.testing.assert_close(encoder.pool(encoder(*inputs), *inputs)[:1], first, rtol=1e-5, atol=1e-5)


def test_unknown_architectures_and_sizes_are_refused():
    with pytest.raises(ValueError, match="no architecture 'lstm'. Choose encoder.architecture from"):
        TextTransformer(TEXT, architecture="lstm")
    with pytest.raises(ValueError, match="no size 'huge'. Choose encoder.size from"):
        TextTransformer(TEXT, size="huge")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_goes_on_from_a_folder(architecture, tmp_path):
    new = encoder_of(architecture)
    model = new._language_model()
    (model.encoder if architecture == "t5" else model.base_model).load_state_dict(new.transformer.state_dict())
    model.save_pretrained(tmp_path)
    old = TextTransformer(LONG, pretrained=str(tmp_path))
    assert all(module.training for module in old.modules()), "it would be trained on without dropout"
    old.eval()
    assert old.pretrained and old.objective == new.objective
    assert torch.equal(old(*packed()), new(*packed()))
    with pytest.raises(ValueError, match="tokens and"):
        TextTransformer(replace(LONG, vocab_size=1000), pretrained=str(tmp_path))
    if architecture != "t5":
        with pytest.raises(ValueError, match="positions"):
            TextTransformer(replace(LONG, length=9000), pretrained=str(tmp_path))


def test_an_architecture_without_packing_says_so(tmp_path):
    config = ElectraConfig(
        vocab_size=64, embedding_size=16, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=300,
    )  # fmt: skip
    ElectraForMaskedLM(config).save_pretrained(tmp_path)
    encoder = TextTransformer(LONG, pretrained=str(tmp_path))
    ids, mask, document_ids = packed()
    assert encoder(ids, mask).shape == (2, 200, 32)
    with pytest.raises(ValueError, match="cannot be kept apart in a electra. Set data.packing=false"):
        encoder(ids, mask, document_ids)
