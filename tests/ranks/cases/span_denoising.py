import torch
from ranks.fixed import TEXT, sentences
from torch import nn

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.methods.span_denoising import SpanDenoising
from ssl_lab.optim import SGD
from ssl_lab.pretext.span_corruption import SpanCorruption


class FixedCorruption(nn.Module):
    """Spans that depend on the ids alone."""

    def forward(self, input_ids, attention_mask, spec, first_sentinel):
        draws = torch.stack([(input_ids * k % 61) / 61 for k in (17, 29)])
        return SpanCorruption(noise_density=0.4).corrupt(input_ids, attention_mask, spec, first_sentinel, draws)


def make():
    encoder = TextTransformer(TEXT, architecture="t5", size="tiny", dropout=0.0)
    method = SpanDenoising(encoder, SGD())
    method.corruption = FixedCorruption()
    return method


batch = sentences
