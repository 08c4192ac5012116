import math

import pytest
import torch
from arrays import ArrayText

from ssl_lab.evaluation.likelihood.pseudo_perplexity import PseudoPerplexity

CPU = torch.device("cpu")
TABLE = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))


def from_neighbors(input_ids, attention_mask, positions, document_ids=None):
    """Scores that depend on the tokens to the left and to the right."""
    assert (positions.sum(1) == 1).all()
    assert (input_ids[positions] == 4).all()
    left, right = input_ids.roll(1, dims=1), input_ids.roll(-1, dims=1)
    return (TABLE[left] + TABLE[right] + attention_mask.unsqueeze(-1))[positions]


def slowly(rows):
    total, count = 0.0, 0
    for ids in rows.tolist():
        for t, token in enumerate(ids):
            if token > 4:
                left, right = ids[t - 1], ids[(t + 1) % len(ids)]
                scores = (TABLE[left] + TABLE[right]).double()
                total += float(scores.logsumexp(0) - scores[token])
                count += 1
    return total / count


def test_equals_hiding_one_token_after_the_other():
    data = ArrayText(eval_batch_size=10)
    found = PseudoPerplexity(num_sentences=None).run(from_neighbors, data, device=CPU, split="val")
    expected = slowly(data.columns("val")["input_ids"])
    assert found["pseudo_perplexity/loss"] == pytest.approx(expected, rel=1e-6)
    assert found["pseudo_perplexity/perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)


def test_a_limit_takes_sentences_evenly_and_batch_sizes_do_not_matter():
    run = PseudoPerplexity(num_sentences=7).run
    results = [run(from_neighbors, ArrayText(eval_batch_size=size), device=CPU) for size in (1, 5, 64)]
    rows = torch.arange(7) * 64 // 7
    expected = slowly(ArrayText().columns("test")["input_ids"][rows])
    assert [result["pseudo_perplexity/loss"] for result in results] == pytest.approx([expected] * 3, rel=1e-6)
    few = PseudoPerplexity(num_sentences=1000).run(from_neighbors, ArrayText(), device=CPU)
    assert few == PseudoPerplexity(num_sentences=None).run(from_neighbors, ArrayText(), device=CPU)


def test_documents_of_a_row_are_handed_on():
    class Packed(ArrayText):
        def as_batch(self, rows):
            return {**super().as_batch(rows), "document_ids": (rows["input_ids"] > 0).long()}

    seen = []

    def spy(ids, mask, positions, document_ids):
        seen.append(document_ids)
        assert torch.equal(document_ids > 0, mask == 1)
        return from_neighbors(ids, mask, positions)

    PseudoPerplexity(num_sentences=3).run(spy, Packed(), device=CPU)
    assert seen


def test_text_without_words_and_impossible_limits_are_refused():
    class Empty(ArrayText):
        def columns(self, split):
            return {"input_ids": torch.zeros(8, self.length, dtype=torch.int64)}

    with pytest.raises(ValueError, match="special tokens only"):
        PseudoPerplexity().run(from_neighbors, Empty(), device=CPU)
    with pytest.raises(ValueError, match="num_sentences must be positive"):
        PseudoPerplexity(num_sentences=0)
