from dataclasses import replace

import torch
from ranks.fixed import TEXT, sentences

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.optim import SGD
from ssl_lab.tasks.token_classification import TokenClassification
from ssl_lab.types import Classes


def make():
    encoder = TextTransformer(replace(TEXT, targets={"token_labels": Classes(number=3)}), size="tiny", dropout=0.0)
    return TokenClassification(encoder, SGD(), dropout=0.0)


def batch(step):
    """Words at every other token; half of the rows have few."""
    rows = sentences(step)
    labels = torch.where(rows["attention_mask"] == 1, rows["input_ids"] % 3, -100)
    labels[:, ::2] = -100
    return {**rows, "token_labels": labels}
