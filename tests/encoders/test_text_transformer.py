import pytest
import torch
from ranks.fixed import TEXT, sentences
from torch import nn

from ssl_lab.encoders.text_transformer import TextTransformer


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
    with pytest.raises(ValueError, match=r"no pooling 'max'. Choose encoder.pooling from \['mean', 'first'\]"):
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
