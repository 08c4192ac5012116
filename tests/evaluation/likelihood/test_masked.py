import math
from collections import Counter

import pytest
import torch
from arrays import ArrayText

from ssl_lab.data.base import PRETRAIN
from ssl_lab.evaluation.likelihood.masked import MaskedPrediction
from ssl_lab.pretext.masking import fixed_masks

CPU = torch.device("cpu")
VOCAB = 40
TABLE = 3 * torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(0))


class VariedText(ArrayText):
    """The sentences of ArrayText with tokens of very different frequency."""

    def columns(self, split):
        columns = super().columns(split)
        ids = columns["input_ids"]
        return {**columns, "input_ids": torch.where(ids % 3 == 0, ids, ids.clamp(max=11))}


def from_neighbors(input_ids, attention_mask, positions):
    """Scores that depend on the tokens to the left and to the right."""
    left, right = input_ids.roll(1, dims=1), input_ids.roll(-1, dims=1)
    return (TABLE[left] + TABLE[right] + attention_mask.unsqueeze(-1))[positions]


def masked_sentences(datamodule, split, *, seed, mask_prob):
    columns = datamodule.as_batch(datamodule.columns(split))
    for i in range(datamodule.num_samples):
        ids, mask = columns["input_ids"][i : i + 1], columns["attention_mask"][i : i + 1]
        index = torch.tensor([i])
        yield *fixed_masks(ids, mask, datamodule.spec, index=index, seed=seed, mask_prob=mask_prob), mask


def test_equals_a_loop_over_single_tokens():
    datamodule = VariedText(eval_batch_size=10)
    losses, hits = [], []
    for corrupted, labels, mask in masked_sentences(datamodule, "val", seed=3, mask_prob=0.3):
        everywhere = from_neighbors(corrupted, mask, torch.ones_like(mask, dtype=torch.bool)).double()
        for scores, label in zip(everywhere, labels[0].tolist(), strict=True):
            if label != -100:
                losses.append(float(scores.logsumexp(0) - scores[label]))
                hits.append(int(scores.argmax()) == label)
    found = MaskedPrediction(mask_prob=0.3, seed=3).run(from_neighbors, datamodule, device=CPU, split="val")
    assert found["masked/loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert found["masked/perplexity"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
    assert found["masked/accuracy"] == pytest.approx(sum(hits) / len(hits))


def test_the_unigram_baseline_equals_counting():
    datamodule = VariedText()
    ids = datamodule.columns(PRETRAIN)["input_ids"].flatten().tolist()
    counts = Counter(token for token in ids if token not in datamodule.spec.special_ids)
    words = [token for token in range(VOCAB) if token not in datamodule.spec.special_ids]
    total = sum(counts[word] + 1 for word in words)
    labels = torch.cat(
        [labels.flatten() for _, labels, _ in masked_sentences(datamodule, "test", seed=0, mask_prob=0.15)]
    )
    masked = labels[labels != -100].tolist()
    loss = -sum(math.log((counts[token] + 1) / total) for token in masked) / len(masked)
    common = counts.most_common(1)[0][0]
    found = MaskedPrediction().run(from_neighbors, datamodule, device=CPU)
    assert found["masked/unigram_perplexity"] == pytest.approx(math.exp(loss))
    assert found["masked/unigram_accuracy"] == pytest.approx(masked.count(common) / len(masked))


def test_batch_size_does_not_matter():
    results = [
        MaskedPrediction().run(from_neighbors, VariedText(eval_batch_size=size), device=CPU) for size in (1, 7, 64)
    ]
    assert results[0] == pytest.approx(results[1], rel=1e-6)
    assert results[0] == pytest.approx(results[2], rel=1e-6)


def test_a_uniform_guess_has_a_masked_perplexity_of_the_vocabulary():
    found = MaskedPrediction().run(lambda ids, mask, at: torch.zeros(int(at.sum()), VOCAB), VariedText(), device=CPU)
    assert found["masked/perplexity"] == pytest.approx(VOCAB)
    assert found["masked/loss"] == pytest.approx(math.log(VOCAB))


def test_who_reads_the_neighbors_of_a_regular_text_is_right():
    """Every token of ArrayText says what the next one is; at 1 % a sentence has one mask, or hardly more."""

    def count_on(ids, mask, at):
        before = ids.roll(1, dims=1)
        guess = torch.where(torch.arange(ids.shape[1]) == 0, ids.roll(-1, dims=1) - 1, before + 1)
        return 50 * torch.nn.functional.one_hot(((guess - 5) % 35 + 5)[at], VOCAB).float()

    found = MaskedPrediction(mask_prob=0.01).run(count_on, ArrayText(), device=CPU)
    assert found["masked/accuracy"] > 0.95
    assert found["masked/unigram_accuracy"] < 0.2


def test_masks_depend_on_their_seed_alone():
    run = MaskedPrediction(seed=1).run
    torch.manual_seed(0)
    first = run(from_neighbors, VariedText(), device=CPU)
    torch.manual_seed(1)
    assert run(from_neighbors, VariedText(), device=CPU) == first
    assert MaskedPrediction(seed=2).run(from_neighbors, VariedText(), device=CPU) != first


def test_a_predictor_with_gradients_leaves_no_graph():
    table = TABLE.clone().requires_grad_()
    found = MaskedPrediction().run(lambda ids, mask, at: table[ids[at]], VariedText(), device=CPU)
    assert found["masked/loss"] > 0
    assert table.grad is None


def test_a_hopeless_model_has_a_finite_perplexity():
    found = MaskedPrediction().run(
        lambda ids, mask, at: 1e6 * torch.nn.functional.one_hot(torch.zeros(int(at.sum())).long(), VOCAB).float(),
        VariedText(),
        device=CPU,
    )
    assert found["masked/perplexity"] == math.exp(50)


def test_text_without_words_is_refused():
    class Empty(ArrayText):
        def columns(self, split):
            return {"input_ids": torch.zeros(8, self.length, dtype=torch.int64)}

    with pytest.raises(ValueError, match="special tokens only"):
        MaskedPrediction().run(from_neighbors, Empty(), device=CPU)


@pytest.mark.parametrize("mask_prob", [0.0, 1.0, -0.1])
def test_impossible_probabilities_are_refused(mask_prob):
    with pytest.raises(ValueError, match="mask_prob in"):
        MaskedPrediction(mask_prob=mask_prob)
