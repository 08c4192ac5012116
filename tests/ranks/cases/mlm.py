from ranks.fixed import TEXT, FixedMasking, packed_sentences

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.methods.mlm import MLM
from ssl_lab.optim import SGD


def make():
    return MLM(TextTransformer(TEXT, size="tiny", dropout=0.0), SGD(), FixedMasking())


batch = packed_sentences
