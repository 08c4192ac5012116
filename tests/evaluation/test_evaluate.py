import warnings

import pytest
import torch
from arrays import ArrayImages, ArrayText
from evaluation import evaluate_on_ranks
from evaluation.evaluate_on_ranks import PROTOCOLS, all_metrics
from forked import on_ranks

from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.evaluation.geometry.label_free import FeatureStd, RankMe
from ssl_lab.evaluation.geometry.view_spread import LiDAR
from ssl_lab.evaluation.likelihood.images import LikelihoodBound
from ssl_lab.evaluation.likelihood.masked import MaskedPrediction
from ssl_lab.evaluation.probes.knn import KNN
from ssl_lab.evaluation.probes.linear import FewLabelProbe, LinearProbe
from ssl_lab.evaluation.protocol import Protocol, StreamingProtocol, extract
from ssl_lab.evaluation.samples.quality import SampleQuality

CPU = torch.device("cpu")


class Counted:
    """Raw pixels, and how often they were asked for."""

    def __init__(self, spec):
        self.fn = spec.raw
        self.num_images = 0

    def __call__(self, batch):
        self.num_images += len(batch["image"])
        return self.fn(batch)


class Careless(Protocol):
    """Draws from the global random stream."""

    needs = "features"

    def run(self, fn, datamodule, *, device, split="test"):
        return {"careless/draw": float(torch.rand(()))}


def test_features_are_extracted_once_for_all_probes():
    datamodule = ArrayImages()
    fn = Counted(datamodule.spec)
    metrics = evaluate({"features": fn}, [KNN(), LinearProbe(), FewLabelProbe(), RankMe()], datamodule, device=CPU)
    assert fn.num_images == 2 * 64  # train and test
    assert metrics["knn/top1"] == metrics["linear/top1"] == metrics["few_label/top1_n10"] == 1.0


def test_each_protocol_alone_says_the_same():
    datamodule = ArrayImages()
    fn = datamodule.spec.raw
    protocols = [KNN(), LinearProbe(), FewLabelProbe(), RankMe(), FeatureStd()]
    alone = {}
    for protocol in protocols:
        alone |= protocol.run(fn, datamodule, device=CPU, split="val")
    assert evaluate({"features": fn}, protocols, datamodule, device=CPU, split="val") == alone


def test_the_split_is_the_one_asked_for():
    datamodule = ArrayImages()
    features = extract(datamodule.spec.raw, datamodule, device=CPU, split="val")
    torch.testing.assert_close(features.test_x, datamodule.columns("val")["image"].flatten(1) / 255)
    torch.testing.assert_close(features.train_x, datamodule.columns("train")["image"].flatten(1) / 255)


@pytest.mark.parametrize("eval_batch_size", [1, 30])
def test_features_come_in_order_whatever_the_batches(eval_batch_size):
    datamodule = ArrayImages(eval_batch_size=eval_batch_size)
    features = extract(datamodule.spec.raw, datamodule, device=CPU)
    torch.testing.assert_close(features.test_x, datamodule.columns("test")["image"].flatten(1) / 255)
    torch.testing.assert_close(features.test_y, datamodule.columns("test")["label"])


def test_features_that_are_not_finite_are_told():
    datamodule = ArrayImages()

    def broken(batch):
        features = datamodule.spec.raw(batch)
        features[batch["index"] == 3] = torch.nan
        return features

    with pytest.raises(ValueError, match=r"Features of 1 of 64 test samples are not finite.*optim\.lr"):
        evaluate({"features": broken}, [RankMe()], datamodule, device=CPU)


class Partly(ArrayImages):
    """Every fourth row has no label."""

    def columns(self, split):
        columns = super().columns(split)
        return {**columns, "label": torch.where(torch.arange(self.num_samples) % 4 == 0, -1, columns["label"])}


def test_rows_without_a_label_are_left_out_by_probes_alone():
    features = extract(Partly().spec.raw, Partly(), device=CPU)
    assert len(features.train_x) == len(features.train_y) == 48
    assert features.train_y.min() == features.test_y.min() == 0
    capabilities = {"features": Partly().spec.raw}
    found = evaluate(capabilities, [KNN(), RankMe()], Partly(), device=CPU)
    assert found["rankme/rank"] == evaluate(capabilities, [RankMe()], ArrayImages(), device=CPU)["rankme/rank"]


@pytest.mark.parametrize(
    ("protocol", "need"),
    [
        (SampleQuality(), "sample"),
        (LikelihoodBound(), "elbo"),
        (MaskedPrediction(), "predict_masked"),
        (LiDAR(), "view_features"),
    ],
)
def test_a_missing_capability_is_named(protocol, need):
    datamodule = ArrayImages()
    message = rf"{type(protocol).__name__} needs '{need}', but only \['features'\] is offered"
    with pytest.raises(ValueError, match=message):
        evaluate({"features": datamodule.spec.raw}, [KNN(), protocol], datamodule, device=CPU)


def test_without_labels_probes_are_left_out_with_one_warning():
    datamodule = ArrayImages(labels=False)
    capabilities = {
        "features": datamodule.spec.raw,
        "sample": lambda num_samples, generator: torch.rand(num_samples, 1, 8, 8, generator=generator),
    }
    protocols = [KNN(), LinearProbe(), SampleQuality(num_samples=20), RankMe()]
    with pytest.warns(UserWarning, match="has no labels, which KNN, LinearProbe need: left out") as caught:
        metrics = evaluate(capabilities, protocols, datamodule, device=CPU)
    assert len(caught) == 1
    kinds = ("frechet", "kid", "precision", "recall", "density", "coverage")
    distances = {f"{name}/pixels_n20{end}" for name in kinds for end in ("", "_real")}
    withheld = {
        "precision/pixels_n20",
        "density/pixels_n20",
    }  # noise lies within the manifold of pixels more than images do
    kept = {f"samples/{name}_withheld" for name in ("precision", "density")}
    assert set(metrics) == {"rankme/rank"} | (distances - withheld) | kept


def test_label_free_protocols_read_the_scored_split_alone():
    datamodule = ArrayImages(labels=False)
    fn = Counted(datamodule.spec)
    evaluate({"features": fn}, [RankMe(), FeatureStd()], datamodule, device=CPU)
    assert fn.num_images == 64


def test_unlabelled_data_cannot_be_extracted():
    datamodule = ArrayImages(labels=False)
    with pytest.raises(ValueError, match="ArrayImages has no labels"):
        extract(datamodule.spec.raw, datamodule, device=CPU)


def test_nothing_to_run_gives_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate({}, [], ArrayImages(labels=False), device=CPU) == {}


def test_the_global_random_stream_is_left_alone():
    datamodule = ArrayImages()
    state = torch.random.get_rng_state()
    evaluate({"features": datamodule.spec.raw}, [KNN(), Careless()], datamodule, device=CPU)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_text_is_judged_by_the_same_protocols():
    datamodule = ArrayText()
    metrics = evaluate({"features": datamodule.spec.raw}, [KNN(), FewLabelProbe()], datamodule, device=CPU)
    assert set(metrics) >= {"knn/top1", "few_label/top1_n1", "few_label/top1_n1_std"}


class Brightness(StreamingProtocol):
    """Mean and number of pixels, by sums over batches."""

    needs = "features"

    def update(self, fn, batch, prepared):
        pixels = fn(batch)
        return {"sum": pixels.sum(), "count": torch.tensor(pixels.numel(), dtype=torch.int32)}

    def compute(self, sums, datamodule, split):
        return {"brightness/mean": float(sums["sum"] / sums["count"]), "brightness/count": int(sums["count"])}


def test_a_streaming_protocol_sees_every_sample_once_in_whatever_batches():
    expected = {
        "brightness/mean": float(ArrayImages().columns("test")["image"].double().mean()),
        "brightness/count": 4096,
    }
    for eval_batch_size in (7, 64):
        data = ArrayImages(eval_batch_size=eval_batch_size)
        found = evaluate({"features": lambda batch: batch["image"].float()}, [Brightness()], data, device=CPU)
        assert found == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="Cannot read the test split of ArrayImages: it has no samples"):
        evaluate({"features": len}, [Brightness()], ArrayImages(num_samples=0), device=CPU)


def test_the_number_of_ranks_does_not_matter(tmp_path):
    on_ranks(2, evaluate_on_ranks.main, tmp_path)
    expected = all_metrics()
    assert len(expected) > len(PROTOCOLS)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["metrics"] == second["metrics"]
    assert first["metrics"] == pytest.approx(expected, rel=1e-6)
    assert first["num_images"] + second["num_images"] == 2 * 64
    assert 0 < second["num_images"] < 2 * 64


def test_probes_are_fitted_to_a_fixed_random_part_of_a_large_train_split():
    data = ArrayImages(num_samples=200)
    fn = Counted(data.spec)
    whole = extract(fn, data, device=CPU, split="val")
    fn.num_images = 0
    part = extract(fn, data, device=CPU, split="val", max_train_samples=50)
    assert fn.num_images == 50 + 200
    rows = [int((whole.train_x == row).all(1).nonzero()[0]) for row in part.train_x]
    assert len(rows) == 50 and rows == sorted(set(rows)) and rows[-1] > 150
    torch.testing.assert_close(part.train_y, whole.train_y[rows])
    torch.testing.assert_close(part.test_x, whole.test_x)
    again = extract(fn, data, device=CPU, split="val", max_train_samples=50)
    torch.testing.assert_close(part.train_x, again.train_x)
