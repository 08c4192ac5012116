"""Every protocol on degenerate input: refused, not a number, or anything but the best value.

All protocols of conf/evaluation and all that judge fine-tuned encoders are found here by themselves; one without a case
fails.
"""

import importlib
import inspect
import math
import pkgutil
import warnings
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ssl_lab import evaluation, tasks
from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.evaluation.geometry.disentanglement import DCI, MIG, Coded
from ssl_lab.evaluation.geometry.label_free import FeatureStd, RankMe, Uniformity
from ssl_lab.evaluation.geometry.view_spread import Alignment, LiDAR
from ssl_lab.evaluation.likelihood.codes import CodePrediction
from ssl_lab.evaluation.likelihood.denoising import Denoising
from ssl_lab.evaluation.likelihood.images import ImportanceNLL, LatentUse, LikelihoodBound
from ssl_lab.evaluation.likelihood.language_modelling import LanguageModelling
from ssl_lab.evaluation.likelihood.masked import MaskedPrediction
from ssl_lab.evaluation.likelihood.pseudo_perplexity import PseudoPerplexity
from ssl_lab.evaluation.probes.knn import KNN
from ssl_lab.evaluation.probes.linear import FewLabelProbe, LinearProbe
from ssl_lab.evaluation.protocol import FeatureSet, Protocol
from ssl_lab.evaluation.retrieval.retrieval import Retrieval
from ssl_lab.evaluation.retrieval.sts import STS
from ssl_lab.evaluation.retrieval.zero_shot import ZeroShot
from ssl_lab.evaluation.samples import fid
from ssl_lab.evaluation.samples.distances import frechet_distance, kernel_distance
from ssl_lab.evaluation.samples.manifolds import fit_manifold
from ssl_lab.evaluation.samples.quality import SampleQuality, draw
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.text import TextSpec
from ssl_lab.tasks.classification import ClassScores
from ssl_lab.tasks.question_answering import Answers
from ssl_lab.tasks.semantic_segmentation import MaskScores
from ssl_lab.tasks.similarity import PairScores
from ssl_lab.tasks.token_classification import TaggedSpans
from ssl_lab.tasks.translation import Translations
from ssl_lab.types import Classes

CPU = torch.device("cpu")
SPEC = ImageSpec(shape=(1, 2, 2), targets={"label": Classes(number=2)}, mean=(0.5,), std=(0.5,))
TEXT = TextSpec(length=4, vocab_size=20, pad_id=0, mask_id=1, special_ids=(0, 1))


class Data(SimpleNamespace):
    """One batch of each split."""

    def eval_dataloader(self, split, max_samples=None):
        loader = _Batches([self.batch])
        loader.num_samples = len(self.batch["index"])
        return loader

    def columns(self, split):
        return {**self.batch, "label": torch.zeros(1)}


class _Batches(list):
    """A list that may have attributes."""


def run(protocol, fn, spec=SPEC, **batch):
    number = len(next(iter(batch.values())))
    data = Data(spec=spec, batch={**batch, "index": torch.arange(number)}, eval_batch_size=64)
    return protocol.run(fn, data, device=CPU)


def labelled(protocol):
    def measure(x):
        y = torch.arange(len(x)) % 2
        return protocol.score(FeatureSet(train_x=x, train_y=y, test_x=x, test_y=y, num_classes=2))

    return measure


def of_texts(protocol):
    """Logits of a vocabulary of 20 at each of 3 ordinary tokens."""
    ids = torch.tensor([[5, 6, 7, 0]] * 8)
    mask = (ids != 0).long()

    def measure(x):
        scores = x.flatten().repeat(20)[:20]
        return run(
            protocol,
            lambda i, m, positions: scores.expand(int(positions.sum()), 20),
            TEXT,
            input_ids=ids,
            attention_mask=mask,
        )

    return measure


def of_captions(x):
    texts = x if len(x) > 1 else x.expand(1, -1)
    return Retrieval(recall_at=(1, 5)).score(x, texts, torch.arange(len(x)))


def losses_of_tokens(protocol, called):
    ids = torch.tensor([[5, 6, 7, 8]] * 4)

    def measure(x):
        nats = x.flatten()[:1].square().expand(4, 3) + (0.1 if x.abs().sum() == 0 else 0.0)
        return run(protocol, called(nats), TEXT, input_ids=ids, attention_mask=torch.ones_like(ids))

    return measure


def zero_shot(x):
    protocol = ZeroShot()
    protocol._tokenizer_for = lambda data: None
    protocol._embed_classes = lambda fn, names, tokenizer, device: x[:2] if len(x) > 1 else x.expand(2, -1)
    spec = ImageSpec(shape=(1, 2, 2), targets={"label": Classes(names=("a", "b"))}, mean=(0.5,), std=(0.5,))
    images = torch.zeros(len(x), 1, 2, 2, dtype=torch.uint8)
    return run(protocol, lambda batch: {"image": x}, spec, image=images, label=torch.arange(len(x)) % 2)


def similarities(x):
    ids = torch.ones(len(x), 4, dtype=torch.int64)
    pairs = {f"{k}{name}": ids + (k == "second_") for k in ("", "second_") for name in ("input_ids", "attention_mask")}
    score = torch.arange(len(x)).double()
    return run(
        STS(), lambda batch: x if batch["input_ids"][0, 0] == 1 else x.roll(1, 0) + 1, TEXT, score=score, **pairs
    )


def bound(x):
    images = (torch.arange(len(x)).view(-1, 1, 1, 1) * 9 % 256).expand(-1, 1, 2, 2).byte()
    terms = {name: x[:, 0] + (-5.0 if name == "elbo" else 5.0) for name in ("elbo", "reconstruction", "kl")}
    return run(LikelihoodBound(likelihood="logistic"), lambda batch, generator: terms, image=images)


def of_factors(protocol):
    def measure(x):
        factors = np.stack([np.arange(len(x)) % 3, np.arange(len(x)) % 2], 1).astype(np.float64)
        coded = Coded(x.double().numpy(), factors)
        return protocol.score(coded, coded)

    return measure


def distances(x):
    real = torch.randn(40, x.shape[1], generator=torch.Generator().manual_seed(5))
    fit_manifold(x)
    return {"frechet": frechet_distance(x, real), "kid": kernel_distance(x, real, subset_size=len(x), num_subsets=2)}


class Tagged:
    """A sentence of each row: five words, of which the third and fourth are a name."""

    spec = TextSpec(length=5, targets={"token_labels": Classes(names=("O", "B-X", "I-X"))}, vocab_size=9, pad_id=0)
    eval_dataloader = Data.eval_dataloader

    def __init__(self, number, tags=(0, 0, 1, 2, 0)):
        self.tags = tags
        labels = torch.tensor(tags).expand(number, -1)
        self.batch = {"token_labels": labels, "index": torch.arange(number)}

    def sentences(self, split):
        return [(["word"] * 5, [self.spec.classes("token_labels").names[tag] for tag in self.tags])] * len(
            self.batch["index"]
        )


def tags(x):
    """The tag of each word is the number that its feature comes next to."""
    x = x[:, [k % x.shape[1] for k in range(5)]]
    predicted = x.nan_to_num(0, 0, 0).round().long().clamp(0, 2).masked_fill(~x.isfinite(), -1)
    return TaggedSpans().run(lambda batch: predicted, Tagged(len(x)), device=CPU)


class Asked:
    """A question of each row; the answer is the third word of four."""

    eval_dataloader = Data.eval_dataloader

    def __init__(self, number):
        self.batch = {"index": torch.arange(number)}

    def question_of_row(self, split):
        return self.batch["index"]

    def questions(self, split):
        return [SimpleNamespace(answers=["tall"])] * len(self.batch["index"])

    def text_of(self, split, row, start, end):
        return " ".join("she is tall today".split()[start : end + 1])


def answers(x):
    spans = torch.cat([x[:, :2].clamp(0, 3), x[:, 2:3]], 1)
    return Answers().run(lambda batch: spans, Asked(len(x)), device=CPU)


class Translated:
    """A sentence of each row; tokens are words."""

    target_tokenizer = SimpleNamespace(
        batch_decode=lambda ids, **_: [" ".join(WORDS[int(k)] for k in row) for row in ids],
    )
    eval_dataloader = Data.eval_dataloader

    def __init__(self, number):
        self.batch = {"index": torch.arange(number)}

    def references(self, split):
        return ["we went home late again"] * len(self.batch["index"])


WORDS = ("", "we", "went", "home", "late", "again")


def translations(x):
    ids = x.nan_to_num(0, 0, 0).round().long().clamp(0, 5).masked_fill(~x.isfinite(), -1)
    return Translations().run(lambda batch: ids, Translated(len(x)), device=CPU)


def masks(x):
    """Every second pixel is of class 1; that of each is the number that its feature comes next to."""
    truth = (torch.arange(x.shape[1]) % 2).byte().expand(len(x), 1, -1)
    predicted = x.nan_to_num(0, 0, 0).round().clamp(0, 1).byte().masked_fill(~x.isfinite(), 255)
    spec = replace(SPEC, targets={"mask": Classes(number=2)})
    return run(MaskScores(), lambda batch: predicted.unsqueeze(1), spec, mask=truth)


# class: (metrics of features or outputs (N, D), {metric: (which direction is better, its best value)})
CASES = {
    KNN: (labelled(KNN()), {"knn/top1": ("higher", 1.0)}),
    LinearProbe: (labelled(LinearProbe()), {"linear/top1": ("higher", 1.0)}),
    FewLabelProbe: (labelled(FewLabelProbe(num_draws=2)), {"few_label/top1_n5": ("higher", 1.0)}),
    RankMe: (RankMe().score, {"rankme/rank": ("higher", 5.0)}),
    Uniformity: (Uniformity().score, {"uniformity/loss": ("lower", -1.0)}),
    FeatureStd: (FeatureStd().score, {"feature_std/mean": ("higher", 1.0)}),
    Alignment: (lambda x: Alignment().score(torch.stack([x, x])), {"alignment/loss": ("lower", 0.0)}),
    LiDAR: (lambda x: LiDAR().score(torch.stack([x, x])), {"lidar/rank": ("higher", 5.0)}),
    Retrieval: (of_captions, {"retrieval/image_to_text_r1": ("higher", 1.0)}),
    ZeroShot: (zero_shot, {"zero_shot/top1": ("higher", 1.0)}),
    STS: (similarities, {"sts/spearman": ("higher", 1.0)}),
    MIG: (of_factors(MIG()), {"mig/mig": ("higher", 1.0)}),
    DCI: (of_factors(DCI(num_trees=2)), {"dci/disentanglement": ("higher", 1.0), "dci/completeness": ("higher", 1.0)}),
    LikelihoodBound: (bound, {"elbo/elbo": ("higher", 0.0), "elbo/bits_per_dim": ("lower", 0.0)}),
    ImportanceNLL: (
        lambda x: run(
            ImportanceNLL(num_samples=2),
            lambda batch, number, generator: x[batch["index"], :1].expand(1, number).mT - 5,
            image=torch.zeros(len(x), 1, 2, 2),
        ),
        {"nll/nats_k2": ("lower", 0.0)},
    ),
    LatentUse: (
        lambda x: run(LatentUse(), lambda batch: (x, x.square()), image=torch.zeros(len(x), 1)),
        {"elbo/active_units": ("higher", 5.0)},
    ),
    CodePrediction: (
        lambda x: run(CodePrediction(), lambda batch: x.square() + 1, image=torch.zeros(len(x), 1)),
        {"codes/nats": ("lower", 0.0), "codes/perplexity": ("lower", 1.0)},
    ),
    MaskedPrediction: (
        of_texts(MaskedPrediction(mask_prob=0.5)),
        {"masked/perplexity": ("lower", 1.0), "masked/accuracy": ("higher", 1.0)},
    ),
    PseudoPerplexity: (of_texts(PseudoPerplexity()), {"pseudo_perplexity/perplexity": ("lower", 1.0)}),
    LanguageModelling: (
        losses_of_tokens(LanguageModelling(), lambda nats: lambda batch: (nats, torch.ones(4, 3, dtype=torch.bool))),
        {"language_modelling/perplexity": ("lower", 1.0)},
    ),
    Denoising: (
        losses_of_tokens(Denoising(), lambda nats: lambda batch, seed: (nats, torch.ones(4, 3, dtype=torch.bool))),
        {"denoising/perplexity": ("lower", 1.0)},
    ),
    SampleQuality: (distances, {"frechet": ("lower", 0.0), "kid": ("lower", -1.0)}),
    fid.FID: (distances, {"frechet": ("lower", 0.0)}),
    ClassScores: (
        lambda x: run(ClassScores(), lambda batch: x[:, :2], label=torch.arange(len(x)) % 2),
        {"finetune/accuracy": ("higher", 1.0)},
    ),
    PairScores: (
        lambda x: run(PairScores(), lambda batch: x[:, 0], score=torch.arange(len(x)).double()),
        {"finetune/spearman": ("higher", 1.0)},
    ),
    TaggedSpans: (tags, dict.fromkeys(("finetune/token_accuracy", "finetune/f1"), ("higher", 1.0))),
    Answers: (answers, dict.fromkeys(("finetune/exact_match", "finetune/f1"), ("higher", 1.0))),
    MaskScores: (masks, dict.fromkeys(("finetune/miou", "finetune/pixel_accuracy"), ("higher", 1.0))),
    Translations: (translations, dict.fromkeys(("finetune/bleu", "finetune/chrf"), ("higher", 100.0))),
}


def test_every_protocol_has_a_case():
    found = set()
    rooms = [pkgutil.walk_packages(room.__path__, room.__name__ + ".") for room in (evaluation, tasks)]
    for module in chain.from_iterable(rooms):
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and issubclass(value, Protocol) and not inspect.isabstract(value):
                found.add(value.__name__)
    assert found - {"OnData"} == {case.__name__ for case in CASES}  # which measures nothing itself


def good(batch=12, dim=5):
    return torch.randn(batch, dim, generator=torch.Generator().manual_seed(3))


def check(protocol, x):
    """Refused, or no metric is the best there is."""
    measure, best = CASES[protocol]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = measure(x)
        except ValueError as error:
            assert len(str(error)) > 20
            return
    for name, (better, value) in best.items():
        if math.isnan(found[name]):
            continue
        assert found[name] < value - 1e-6 if better == "higher" else found[name] > value + 1e-6, (name, found[name])


@pytest.mark.parametrize("protocol", CASES)
def test_features_that_say_nothing_are_never_the_best(protocol):
    check(protocol, torch.zeros(12, 5))
    check(protocol, torch.ones(12, 5))


@pytest.mark.parametrize("protocol", CASES)
def test_one_sample_is_never_the_best(protocol):
    check(protocol, good(batch=1))


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("protocol", CASES)
def test_features_that_are_not_finite_are_never_the_best(protocol, broken):
    x = good()
    x[:] = broken
    check(protocol, x)
    x = good()
    x[0, 0] = broken
    check(protocol, x)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_samples_that_are_not_finite_are_refused(broken):
    with pytest.raises(ValueError, match="not finite"):
        list(draw(lambda number, generator: torch.full((number, 1, 2, 2), broken), 3, CPU, 0))


@pytest.mark.parametrize("protocol", [KNN(), LinearProbe(), FewLabelProbe(num_draws=2)])
def test_one_class_is_no_score(protocol):
    x, y = good(), torch.zeros(12, dtype=torch.int64)
    features = FeatureSet(train_x=x, train_y=y, test_x=x, test_y=y, num_classes=2)
    with pytest.warns(UserWarning, match="has 1 class, so scores of classification say nothing"):
        assert all(map(math.isnan, protocol.score(features).values()))


def test_the_cases_of_discrete_output_reach_the_best():
    """Else nothing that they say of degenerate output would mean anything."""
    assert tags(torch.tensor([[0.0, 0, 1, 2, 0]]).repeat(3, 1))["finetune/f1"] == 1
    assert answers(torch.full((3, 3), 2.0))["finetune/exact_match"] == 1
    assert masks(torch.tensor([[0.0, 1, 0]]).repeat(3, 1))["finetune/miou"] == 1
    assert translations(torch.arange(1.0, 6).repeat(3, 1))["finetune/bleu"] == pytest.approx(100)


def test_data_without_what_a_protocol_reads_is_refused():
    with pytest.raises(
        ValueError, match=r"Answers needs AnsweredQuestions of .* but Tagged lacks questions, question_of_"
    ):
        evaluate({"answer_spans": lambda batch: batch}, [Answers()], Tagged(2), device=CPU)


def test_one_tag_is_no_score():
    data = Tagged(4, tags=(0,) * 5)
    with pytest.warns(UserWarning, match="All 20 words of the test split have the tag O"):
        found = TaggedSpans().run(lambda batch: batch["token_labels"], data, device=CPU)
    assert all(map(math.isnan, found.values())) and "finetune/f1" in found


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (answers, "Answer spans of 1 of 4 test samples"),
        (tags, "Scores of [12] of 20 test words"),
        (translations, "Scores of 1 of 4 test translations"),
        (masks, "Scores of 1 of 12 test pixels"),
        (of_texts(MaskedPrediction(mask_prob=0.9)), "Scores of [0-9]+ of [0-9]+ test masked tokens"),
    ],
)
def test_predictions_from_scores_that_are_not_finite_are_refused(measure, said):
    x = torch.zeros(4, 3)
    x[2, 2] = math.nan
    with pytest.raises(ValueError, match=f"{said} are not finite"):
        measure(x)


@pytest.mark.parametrize("protocol", [MIG(), DCI(num_trees=2)])
def test_factors_that_do_not_vary_are_no_score(protocol):
    coded = Coded(good().double().numpy(), np.ones((12, 3)))
    assert all(map(math.isnan, protocol.score(coded, coded).values()))
    with pytest.raises(ValueError, match="there is 1"):
        Coded(good(dim=1).double().numpy(), np.ones((12, 3)))


OF_ANY_SCALE = (KNN, LinearProbe, FewLabelProbe, RankMe, Uniformity, FeatureStd, Alignment, LiDAR)


@pytest.mark.parametrize("scale", [1e-37, 1e-14, 1e37])
@pytest.mark.parametrize("protocol", OF_ANY_SCALE)
def test_how_large_features_are_does_not_matter(protocol, scale):
    """Squares of fp32 overflow beyond 1e19 and vanish below 1e-23."""
    x = good(batch=24) + 2 * (torch.arange(24) % 2).unsqueeze(1)
    measure = CASES[protocol][0]
    if protocol in (Alignment, LiDAR):
        measure = lambda x: protocol().score(torch.stack([x, x.roll(1, 1)]))  # noqa: E731
    expected = measure(x)
    found = measure(x * scale)
    assert found == pytest.approx(expected, rel=1e-4)
    assert not any(map(math.isnan, found.values()))
