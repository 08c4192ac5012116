import pytest
import torch
from ranks.fixed import TEXT, triples

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.losses.contrastive import in_batch_info_nce
from ssl_lab.methods.simcse_supervised import SimCSESupervised
from ssl_lab.optim import AdamW


@pytest.fixture
def method():
    torch.manual_seed(0)
    return SimCSESupervised(TextTransformer(TEXT, size="tiny", dropout=0.0), AdamW())


def text(batch, kind=""):
    return {name: batch[kind + name] for name in ("input_ids", "attention_mask")}


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_hard_negatives_are_candidates_of_every_text(method):
    batch = triples(0)
    first, second, negative = (method.head(method.encoder.embed(text(batch, k))) for k in ("", "second_", "negative_"))
    expected = in_batch_info_nce(first, torch.cat([second, negative]), temperature=0.05)
    torch.testing.assert_close(method.training_step(batch, 0), expected)
    pairs = {name: column for name, column in batch.items() if not name.startswith("negative_")}
    without = in_batch_info_nce(first, second, temperature=0.05)
    torch.testing.assert_close(method.training_step(pairs, 0), without)
    assert without < expected


def test_features_go_through_the_head(method):
    batch = triples(0)
    torch.testing.assert_close(method.features(batch), method.head(method.encoder.embed(text(batch))))


def test_a_bad_temperature_is_refused():
    with pytest.raises(ValueError, match="temperature must be positive"):
        SimCSESupervised(TextTransformer(TEXT, size="tiny"), AdamW(), temperature=-1.0)
