from ranks.fixed import TEXT, packed_sentences

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.methods.causal_lm import CausalLM
from ssl_lab.optim import SGD


def make():
    return CausalLM(TextTransformer(TEXT, architecture="gpt2", size="tiny", dropout=0.0), SGD())


batch = packed_sentences
