import math

import pytest
import torch
from arrays import ArrayTextPairs

from ssl_lab.evaluation.retrieval.sts import STS

CPU = torch.device("cpu")


class Scored(ArrayTextPairs):
    """Pairs whose first text says an angle; the second says 0."""

    def __init__(self, scores, **settings):
        super().__init__(num_samples=len(scores), **settings)
        self.scores = torch.tensor(scores)

    def columns(self, split):
        ids = torch.zeros(self.num_samples, self.length, dtype=torch.int64)
        first = ids.clone()
        first[:, 1] = torch.arange(self.num_samples)
        return {"input_ids": first, "second_input_ids": ids, "score": self.scores}


def angle(batch):
    degrees = 10.0 * batch["input_ids"][:, 1]
    return torch.stack([torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))], 1)


def spearman(scores, fn=angle, **settings):
    return STS().run(fn, Scored(scores, **settings), device=CPU)["sts/spearman"]


def test_the_order_alone_decides():
    assert spearman([5.0, 4.0, 3.9, 0.0]) == pytest.approx(1)
    assert spearman([0.0, 1.0, 1.1, 50.0]) == pytest.approx(-1)


def test_equals_pearson_of_mean_ranks_with_ties():
    scores = [3.0, 5.0, 3.0, 0.0, 1.0, 5.0, 3.0]
    ranks = torch.tensor([4.0, 6.5, 4.0, 1.0, 2.0, 6.5, 4.0])
    found = torch.corrcoef(torch.stack([ranks, torch.arange(7.0, 0, -1)]))[0, 1]
    assert spearman(scores) == pytest.approx(found.item(), rel=1e-6)


@pytest.mark.parametrize("eval_batch_size", [1, 3])
def test_batch_size_and_scale_of_features_do_not_matter(eval_batch_size):
    scores = [3.0, 5.0, 3.5, 0.0, 1.0]
    for factor in (7, 1e-30, 1e30):
        found = spearman(scores, lambda batch, by=factor: by * angle(batch), eval_batch_size=eval_batch_size)
        assert found == pytest.approx(spearman(scores))


def test_pairs_without_a_score_are_left_out():
    assert spearman([5.0, math.nan, 3.9, 0.0]) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"1 of its 3 pairs have a score.*data\.score_column"):
        spearman([5.0, math.nan, math.nan])


def test_equal_similarities_are_not_a_number():
    assert math.isnan(spearman([1.0, 2.0, 3.0], lambda batch: torch.ones(len(batch["input_ids"]), 2)))
