import math
from types import SimpleNamespace

import pytest
import torch
from arrays import ArrayText

from ssl_lab.evaluation.likelihood.language_modelling import LanguageModelling

CPU = torch.device("cpu")
TABLE = 3 * torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
COUNTS = SimpleNamespace(num_documents=64, num_words=150, num_bytes=900)


class Documents(ArrayText):
    """Unlabelled rows; every second one holds two documents, and every fifth begins with a class token."""

    def columns(self, split):
        ids = super().columns(split)["input_ids"]
        ids[::5, 0] = 2
        document_ids = (ids > 0).long()
        document_ids[::2, 4:] *= 2
        return {"input_ids": ids, "document_ids": document_ids}

    def text_counts(self, split):
        assert split == "test"
        return COUNTS


def from_the_left(batch):
    """Losses of a model that looks one token back, and does not look into other documents."""
    ids, documents = batch["input_ids"], batch["document_ids"]
    predicted = (batch["attention_mask"][:, 1:] == 1) & (documents[:, 1:] == documents[:, :-1])
    losses = -TABLE[ids[:, :-1]].log_softmax(-1).gather(2, ids[:, 1:].unsqueeze(-1)).squeeze(-1)
    return torch.where(predicted, losses, 0.0), predicted


def test_equals_a_loop_over_single_tokens():
    data = Documents()
    columns = data.columns("test")
    nats, num_tokens, frequencies = [], 0, {}
    for ids in data.columns("train")["input_ids"].tolist():
        for token in ids:
            if token:
                frequencies[token] = frequencies.get(token, 0) + 1
    everything = sum(frequencies.values()) + 40
    unigram = []
    for ids, documents in zip(columns["input_ids"].tolist(), columns["document_ids"].tolist(), strict=True):
        for t, (token, document) in enumerate(zip(ids, documents, strict=True)):
            if document and t and documents[t - 1] == document:
                scores = TABLE[ids[t - 1]].double()
                nats.append(float(scores.logsumexp(0) - scores[token]))
                unigram.append(-math.log((frequencies.get(token, 0) + 1) / everything))
            num_tokens += document > 0 and token != 2
    mean = sum(nats) / len(nats)
    found = LanguageModelling().run(from_the_left, data, device=CPU)
    assert found == pytest.approx(
        {
            "language_modelling/loss": mean,
            "language_modelling/perplexity": math.exp(mean),
            "language_modelling/unigram_perplexity": math.exp(sum(unigram) / len(unigram)),
            "language_modelling/word_perplexity": math.exp(min(50, mean * num_tokens / 150)),
            "language_modelling/byte_perplexity": math.exp(mean * num_tokens / 900),
            "language_modelling/bits_per_byte": mean * num_tokens / 900 / math.log(2),
        },
        rel=1e-5,
    )


def test_batch_size_does_not_matter():
    results = [
        LanguageModelling().run(from_the_left, Documents(eval_batch_size=size), device=CPU) for size in (1, 7, 64)
    ]
    assert results[0] == pytest.approx(results[1], rel=1e-9)
    assert results[0] == pytest.approx(results[2], rel=1e-9)


def test_words_and_bytes_of_labelled_texts_are_not_asked_for():
    def uniform(batch):
        predicted = batch["attention_mask"][:, 1:] == 1
        return predicted * math.log(40), predicted

    found = LanguageModelling().run(uniform, ArrayText(), device=CPU)
    assert found["language_modelling/perplexity"] == pytest.approx(40)
    assert set(found) == {f"language_modelling/{name}" for name in ("loss", "perplexity", "unigram_perplexity")}


def test_rows_of_one_token_are_refused():
    def nothing(batch):
        nowhere = torch.zeros_like(batch["input_ids"][:, 1:])
        return nowhere.float(), nowhere.bool()

    with pytest.raises(ValueError, match="none of its rows has two tokens"):
        LanguageModelling().run(nothing, ArrayText(), device=CPU)
