from dataclasses import replace

import torch
from ranks.fixed import NUM_SAMPLES, TEXT, sentences

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.optim import SGD
from ssl_lab.tasks.text_classification import TextClassification
from ssl_lab.types import Classes


def make():
    encoder = TextTransformer(replace(TEXT, targets={"label": Classes(number=3)}), size="tiny", dropout=0.0)
    return TextClassification(encoder, SGD(), dropout=0.0)


def batch(step):
    """More rows without a label on some ranks than on others."""
    label = torch.arange(NUM_SAMPLES) % 3
    label[: NUM_SAMPLES // 2 - 1] = -1
    return {**sentences(step), "label": label}
