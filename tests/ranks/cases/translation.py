from dataclasses import replace

from ranks.fixed import TEXT, sentences

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.modalities.text import WrittenText
from ssl_lab.optim import SGD
from ssl_lab.tasks.translation import Translation


def make():
    written = WrittenText(length=12, vocab_size=64, pad_id=0, begin_id=1, end_id=2)
    spec = replace(TEXT, targets={"target_input_ids": written})
    return Translation(TextTransformer(spec, size="tiny", dropout=0.0), SGD(), dropout=0.0)


def batch(step):
    """Translations of which half are short."""
    rows, target = sentences(step), sentences(step + 100)
    return {**rows, **{f"target_{name}": target[name] for name in ("input_ids", "attention_mask")}}
