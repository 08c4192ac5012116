from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from arrays import ArrayTextPairs
from tasks.tiny import encoder, fit, optim

from ssl_lab.cli.data_of_run import check_same_classes
from ssl_lab.data.text.tokenizer import train_wordpiece
from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.modalities.text import TextSpec
from ssl_lab.tasks.similarity import PairScores, Similarity, join_texts
from ssl_lab.types import Classes


class Pairs(ArrayTextPairs):
    """Pairs that are the more similar the later token their first text begins with; some have no score."""

    def columns(self, split):
        columns = super().columns(split)
        score = (columns["input_ids"][:, 0] - 5).float() / 7
        score[::9] = torch.nan
        return {**columns, "score": score}


def test_learns(tmp_path):
    data = Pairs(batch_size=8)
    method = Similarity(encoder(data.spec), optim())
    losses = fit(method, data, tmp_path, epochs=6)
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    found = evaluate(method.capabilities(), [PairScores()], data, device=torch.device("cpu"))
    assert set(found) == {"finetune/spearman", "finetune/pearson"}
    assert found["finetune/spearman"] > 0.7


def test_rows_are_those_of_the_tokenizer_for_pairs():
    texts = [("a dog runs", "it is a dog"), ("no", "a very long answer"), ("dog dog dog", "no")]
    tokenizer = train_wordpiece(lambda: [[text for pair in texts for text in pair]], vocab_size=60)
    first, second = zip(*texts, strict=True)
    batch = {}
    for name, side in (("", first), ("second_", second)):
        encoded = tokenizer(list(side), padding="max_length", max_length=14, return_tensors="pt")
        batch |= {f"{name}{column}": encoded[column] for column in ("input_ids", "attention_mask")}
    spec = TextSpec(length=14, vocab_size=60, pad_id=0, special_ids=tuple(tokenizer.all_special_ids))
    joined = join_texts(batch, spec)
    settings = {"padding": "max_length", "max_length": 28, "return_token_type_ids": True, "return_tensors": "pt"}
    expected = tokenizer(list(first), list(second), **settings)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert torch.equal(joined[name], expected[name]), name


def test_pairs_without_a_score_do_not_matter():
    data = Pairs()
    method = Similarity(encoder(data.spec), optim(), min_score=-1, max_score=4).eval()
    batch = next(iter(data.eval_dataloader("train")))
    known = ~batch["score"].isnan()
    expected = (method.similarities(batch)[known] - (batch["score"][known] + 1) / 5).square().mean()
    torch.testing.assert_close(method.training_step(batch, 0), expected)


def test_refuses_a_scale_of_nothing():
    with pytest.raises(ValueError, match="method.max_score above method.min_score"):
        Similarity(encoder(Pairs().spec), optim(), min_score=5)


def test_scores_of_pairs_need_no_classes_of_the_training():
    """Labels that the task does not learn tell no data apart."""
    spec = replace(Pairs().spec, targets={"label": Classes(names=("a", "b"))})
    method = Similarity(encoder(spec), optim())
    check_same_classes(method, [PairScores()], spec, SimpleNamespace(spec=Pairs().spec))
