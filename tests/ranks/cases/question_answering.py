import torch
from ranks.fixed import NUM_SAMPLES, TEXT, sentences

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.optim import SGD
from ssl_lab.tasks.question_answering import QuestionAnswering


def make():
    return QuestionAnswering(TextTransformer(TEXT, size="tiny", dropout=0.0), SGD())


def batch(step):
    """Answers at the beginning of the text."""
    rows = sentences(step)
    start = torch.arange(NUM_SAMPLES) % 4
    text = rows["attention_mask"] == 1
    types = torch.zeros_like(rows["input_ids"])
    return {**rows, "token_type_ids": types, "context_mask": text, "start_position": start, "end_position": start + 1}
