from ranks.fixed import TEXT, triples

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.methods.simcse_supervised import SimCSESupervised
from ssl_lab.optim import SGD


def make():
    return SimCSESupervised(TextTransformer(TEXT, size="tiny", dropout=0.0), SGD())


batch = triples
