"""What stands in padding changes no output of a task, whatever the encoder."""

from dataclasses import replace

import pytest
import torch
from arrays import ArrayText
from tasks.tiny import encoder, optim

from ssl_lab.modalities.text import WrittenText
from ssl_lab.tasks.question_answering import QuestionAnswering
from ssl_lab.tasks.similarity import Similarity
from ssl_lab.tasks.text import trim
from ssl_lab.tasks.text_classification import TextClassification
from ssl_lab.tasks.token_classification import TokenClassification
from ssl_lab.tasks.translation import Translation
from ssl_lab.types import Classes

ARCHITECTURES = ("bert", "roberta", "modernbert", "gpt2", "t5")
LENGTHS = torch.tensor([12, 6, 3, 9])


def of_tokens(method, batch):
    return method.head(method.hidden(trim(batch)))[batch["attention_mask"] == 1]


def of_questions(method, batch):
    start, end = method.logits(trim(batch, "context_mask"))
    return torch.stack([start, end])[:, batch["attention_mask"] == 1]


TASKS = {
    TextClassification: lambda method, batch: method.logits(batch),
    Similarity: lambda method, batch: method.similarities(batch),
    TokenClassification: of_tokens,
    QuestionAnswering: of_questions,
    Translation: lambda method, batch: method.training_step(batch, 0),
}


def batch_with(padding):
    """Rows of different lengths, their padding filled with one id."""
    chance = torch.Generator().manual_seed(0)
    batch = {}
    for name, lengths in (("", LENGTHS), ("second_", LENGTHS.flip(0)), ("target_", LENGTHS.roll(1))):
        mask = torch.arange(12) < lengths.unsqueeze(1)
        ids = torch.randint(5, 40, (4, 12), generator=chance)
        batch |= {f"{name}input_ids": torch.where(mask, ids, padding), f"{name}attention_mask": mask.long()}
    batch["context_mask"] = batch["attention_mask"] == 1
    return batch


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("task", TASKS)
def test_padding_ids_do_not_matter(task, architecture):
    written = WrittenText(length=12, vocab_size=40, pad_id=0, begin_id=1, end_id=2)
    classes = Classes(number=2)
    targets = {"label": classes, "token_labels": classes, "target_input_ids": written}
    spec = replace(ArrayText().spec, eos_id=3, targets=targets)
    method = task(encoder(spec, architecture=architecture), optim()).eval()
    with torch.no_grad():
        expected = TASKS[task](method, batch_with(padding=0))
        for padding in (3, 17):
            torch.testing.assert_close(TASKS[task](method, batch_with(padding)), expected, rtol=0, atol=1e-6)
        other = batch_with(padding=0)
        other["input_ids"][:, 0] = 11
        assert not torch.allclose(TASKS[task](method, other), expected, atol=1e-6), "real tokens do"
