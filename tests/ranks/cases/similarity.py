import torch
from ranks.fixed import NUM_SAMPLES, TEXT, triples

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.optim import SGD
from ssl_lab.tasks.similarity import Similarity


def make():
    return Similarity(TextTransformer(TEXT, size="tiny", dropout=0.0), SGD(), dropout=0.0)


def batch(step):
    """More pairs without a score on some ranks than on others."""
    score = torch.arange(NUM_SAMPLES, dtype=torch.float64) % 6
    score[: NUM_SAMPLES // 2 - 1] = torch.nan
    return {**triples(step), "score": score}
