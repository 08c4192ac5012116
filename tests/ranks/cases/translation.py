from dataclasses import replace

from ranks.fixed import TEXT, sentences

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.optim import SGD
from ssl_lab.tasks.translation import Translation


def make():
    spec = replace(TEXT, target_length=12, target_vocab_size=64, target_ids=(0, 1, 2))
    return Translation(TextTransformer(spec, size="tiny", dropout=0.0), SGD(), dropout=0.0)


def batch(step):
    """Translations of which half are short."""
    rows, target = sentences(step), sentences(step + 100)
    return {**rows, **{f"target_{name}": target[name] for name in ("input_ids", "attention_mask")}}
