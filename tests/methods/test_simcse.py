import pytest
import torch
from ranks.fixed import TEXT, sentences
from torch import nn

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.losses.contrastive import in_batch_info_nce
from ssl_lab.methods import simcse
from ssl_lab.methods.simcse import SimCSE
from ssl_lab.optim import AdamW


@pytest.fixture
def method():
    torch.manual_seed(0)
    return SimCSE(TextTransformer(TEXT, size="tiny"), AdamW(lr=1e-3))


def seen(method, batch, monkeypatch):
    """The two views that the loss is given."""
    views = []
    monkeypatch.setattr(simcse, "in_batch_info_nce", lambda a, b, **settings: views.extend((a, b)) or a.sum())
    method.training_step(batch, 0)
    return views


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_the_two_views_are_dropout_passes_of_one_sentence(method, monkeypatch):
    batch = sentences(0)
    z_a, z_b = seen(method.train(), batch, monkeypatch)
    assert z_a.shape == z_b.shape == (len(batch["index"]), method.encoder.embed_dim)
    assert ((z_a - z_b).abs().amax(1) > 1e-3).all()
    for module in method.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    without = method.head(method.encoder.embed(batch))
    assert (torch.cosine_similarity(z_a, without) > 0.9).all()


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_a_step_is_one_forward_of_the_doubled_batch(method):
    sizes = []
    method.encoder.transformer.register_forward_hook(lambda module, args, output: sizes.append(len(output[0])))
    batch = sentences(0)
    loss = method.training_step(batch, 0)
    assert sizes == [2 * len(batch["index"])]
    assert loss > 0


def test_features_are_the_encoders_without_head_or_dropout(method):
    batch = sentences(0)
    features = method.train().features(batch)
    torch.testing.assert_close(features, method.encoder.eval().embed(batch))


def test_it_learns_to_tell_sentences_apart(method):
    batch = sentences(0)
    optimizer, _ = method.optim.build(method, total_steps=30)

    def loss():
        z_a, z_b = method.head(method.encoder.embed(simcse._twice(batch))).chunk(2)
        return in_batch_info_nce(z_a, z_b, temperature=method.temperature)

    before = loss().item()
    for _ in range(30):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.5 * before


def test_an_encoder_without_dropout_and_a_bad_temperature_are_refused():
    encoder = TextTransformer(TEXT, size="tiny", dropout=0.0)
    with pytest.raises(ValueError, match=r"dropout alone.*encoder\.dropout=0\.1"):
        SimCSE(encoder, AdamW())
    with pytest.raises(ValueError, match="temperature must be positive"):
        SimCSE(TextTransformer(TEXT, size="tiny"), AdamW(), temperature=0.0)
