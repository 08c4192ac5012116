import pytest
import torch
from arrays import ArrayImages
from torch import nn

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.evaluation.samples import real_images
from ssl_lab.evaluation.samples.class_judge import class_judge
from ssl_lab.evaluation.samples.distances import frechet_distance
from ssl_lab.evaluation.samples.quality import SampleQuality, withheld
from ssl_lab.evaluation.samples.real_images import content_digest
from ssl_lab.types import Encoder

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class FromImages:
    """A generator that draws stored images, and remembers what it was asked for."""

    def __init__(self, images):
        self.images = images.float() / 255
        self.counts = []

    def __call__(self, num_samples, generator):
        self.counts.append(num_samples)
        return self.images[torch.randint(len(self.images), (num_samples,), generator=generator)]


def score(images, *, datamodule=None, split="test", **settings):
    settings = {"num_samples": 200, **settings}
    return SampleQuality(**settings).run(FromImages(images), datamodule or ArrayImages(), device=CPU, split=split)


def test_real_images_beat_noise_and_reach_the_floor():
    datamodule = ArrayImages(num_samples=300)
    real = score(datamodule.columns("val")["image"], datamodule=datamodule)
    noise = score(torch.randint(0, 256, (300, 1, 8, 8), dtype=torch.uint8), datamodule=datamodule)
    kinds = ("frechet", "kid", "precision", "recall", "density", "coverage")
    assert set(real) == {
        *(f"{kind}/pixels_n200{end}" for kind in kinds for end in ("", "_real")),
        "samples/class_share_0",
        "samples/class_share_1",
        "samples/min_class_share",
        "samples/min_class_share_real",
        "samples/judge_top1",
    }
    for name in ("frechet/pixels_n200", "kid/pixels_n200"):
        assert noise[f"{name}_real"] == real[f"{name}_real"]
        assert noise[name] > 3 * real[name]
    assert real["frechet/pixels_n200"] == pytest.approx(real["frechet/pixels_n200_real"], rel=0.5)


def test_distances_are_those_of_the_pixels():
    datamodule = ArrayImages()
    train, real = (datamodule.columns(split)["image"].flatten(1) / 255 for split in ("train", "test"))
    found = score(torch.zeros(1, 1, 8, 8), num_samples=64, datamodule=datamodule)
    spread = real - real.mean(0)
    expected = real.mean(0).square().sum() + spread.square().sum() / 63  # the samples have no spread
    assert found["frechet/pixels_n64"] == pytest.approx(float(expected), rel=1e-5)
    assert found["frechet/pixels_n64_real"] == pytest.approx(frechet_distance(train, real), rel=1e-6)


def test_classes_of_samples_are_counted():
    columns = ArrayImages().columns("train")
    both = score(columns["image"], num_samples=1000)
    assert both["samples/class_share_0"] == pytest.approx(0.5, abs=0.06)
    assert both["samples/judge_top1"] == 1.0
    collapsed = score(columns["image"][columns["label"] == 1])
    assert collapsed["samples/class_share_1"] == 1.0
    assert collapsed["samples/min_class_share"] == collapsed["samples/class_share_0"] == 0.0


def test_a_smear_is_no_plausible_image():
    datamodule = ArrayImages(num_samples=300)
    images = datamodule.columns("train")["image"].float()
    smears = (images.mean(0) + 0.02 * (images - images.mean(0))).round().byte()
    found = score(smears, datamodule=datamodule)
    assert "precision/pixels_n200" not in found and "density/pixels_n200" not in found
    assert found["samples/density_withheld"] >= 0 and found["samples/precision_withheld"] >= 0
    assert {"recall/pixels_n200", "coverage/pixels_n200", "precision/pixels_n200_real"} <= set(found)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"precision": 0.8, "recall": 0.7, "density": 1.0, "coverage": 0.9}, ()),
        ({"precision": 0.84, "recall": 0.7, "density": 1.04, "coverage": 0.9}, ()),  # within the noise of 2,000
        ({"precision": 0.995, "recall": 0.1, "density": 12.3, "coverage": 0.1}, ("precision", "density")),
        ({"precision": 0.8, "recall": 0.0, "density": 0.9, "coverage": 0.1}, ("precision", "density")),
        ({"precision": 0.8, "recall": 0.1, "density": 0.9, "coverage": 0.0}, ("precision", "density")),
    ],
)
def test_values_beyond_those_of_real_images_are_withheld(found, expected):
    real = {"precision": 0.8, "recall": 0.8, "density": 1.0, "coverage": 0.95}
    assert withheld(found, real, num_samples=2000) == expected


def test_classes_are_told_by_a_network_that_learned_the_labels():
    datamodule = ArrayImages(num_samples=300)
    columns = datamodule.columns("train")
    judge = class_judge(datamodule, num_classes=2, device=CPU)
    assert float((judge.classify(columns["image"]) == columns["label"]).float().mean()) == 1.0
    again = class_judge(datamodule, num_classes=2, device=CPU)
    assert all(torch.equal(a, b) for a, b in zip(judge.parameters(), again.parameters(), strict=True))
    unlabelled = ArrayImages(num_samples=300)
    unlabelled.columns = lambda split: {**columns, "label": torch.full((300,), -1)}
    assert class_judge(unlabelled, num_classes=2, device=CPU) is None


def test_the_judge_reads_images_of_any_size():
    for shape in ((1, 2, 3), (3, 40, 50)):
        judge = class_judge(ArrayImages(num_samples=8, shape=shape), num_classes=2, device=CPU)
        assert judge.classify(torch.zeros(3, *shape, dtype=torch.uint8)).shape == (3,)


def test_samples_are_drawn_in_batches_from_one_seeded_stream():
    generator = FromImages(ArrayImages().columns("train")["image"])
    protocol = SampleQuality(num_samples=1200, seed=3)
    first = protocol.run(generator, ArrayImages(), device=CPU)
    assert generator.counts == [500, 500, 200]
    assert protocol.run(generator, ArrayImages(), device=CPU) == first
    assert SampleQuality(num_samples=1200, seed=4).run(generator, ArrayImages(), device=CPU) != first


def test_samples_are_rounded_to_stored_levels_and_cut_to_the_range():
    images = ArrayImages().columns("train")["image"].float()
    images[:, :, 0, :4] = 255
    off = images + 0.4
    off[:, :, 0, :4] = 300
    assert score(off) == score(images)


def test_unlabelled_data_has_distances_alone():
    datamodule = ArrayImages(labels=False)
    found = score(datamodule.columns("train")["image"], datamodule=datamodule)
    assert {name.split("/")[0] for name in found} == {"frechet", "kid", "precision", "recall", "density", "coverage"}


def test_unlabelled_rows_vote_for_nothing():
    class Partly(ArrayImages):
        def columns(self, split):
            columns = super().columns(split)
            return {**columns, "label": torch.where(torch.arange(self.num_samples) % 4 == 2, -1, columns["label"])}

    found = score(ArrayImages().columns("train")["image"], datamodule=Partly(), num_samples=1000)
    assert found["samples/class_share_0"] == pytest.approx(0.5, abs=0.06)
    assert found["samples/judge_top1"] == 1.0


def test_the_floor_of_sorted_data_sees_every_class():
    class Sorted(ArrayImages):
        def columns(self, split):
            columns = super().columns(split)
            order = columns["label"].argsort(stable=True)
            return {name: column[order] for name, column in columns.items()}

    datamodule = Sorted(num_samples=400)
    train, real = (datamodule.columns(split)["image"].flatten(1) / 255 for split in ("train", "test"))
    found = score(torch.zeros(1, 1, 8, 8), datamodule=datamodule)
    assert found["frechet/pixels_n200_real"] < 0.1 * frechet_distance(train[:200], real)


def test_a_named_encoder_is_used_in_eval_mode():
    class Noisy(Encoder):
        def __init__(self, spec):
            super().__init__()
            self.spec, self.embed_dim = spec, 64
            self.dropout = nn.Dropout(0.5)

        def embed(self, batch):
            return 2 * self.dropout(batch["image"].flatten(1) / 255)

    images = ArrayImages().columns("train")["image"]
    pixels = score(images)
    found = score(images, encoder=Noisy(ArrayImages().spec), encoder_name="noisy")
    assert found["frechet/noisy_n200"] == pytest.approx(4 * pixels["frechet/pixels_n200"], rel=1e-5)


def test_runs_with_a_convolutional_encoder():
    encoder = ConvNet(ArrayImages().spec, widths=(8, 16))
    found = score(ArrayImages().columns("train")["image"], encoder=encoder, encoder_name="convnet")
    assert all(torch.isfinite(torch.tensor(list(found.values()))))
    assert "kid/convnet_n200_real" in found


def test_an_encoder_needs_a_name_of_its_own():
    with pytest.raises(ValueError, match="named 'pixels': found ConvNet"):
        SampleQuality(encoder=ConvNet(ArrayImages().spec, widths=(8,)), encoder_name="pixels")
    with pytest.raises(ValueError, match="named 'resnet': found raw pixels"):
        SampleQuality(encoder_name="resnet")


def test_one_sample_has_no_covariance():
    with pytest.raises(ValueError, match="num_samples=1"):
        SampleQuality(num_samples=1)


def test_an_encoder_without_a_name_is_called_by_its_class_and_weights():
    encoders = [ConvNet(ArrayImages().spec, widths=(8,)) for _ in range(2)]
    names = [SampleQuality(encoder=encoder).encoder_name for encoder in encoders]
    assert names[0] == SampleQuality(encoder=encoders[0]).encoder_name != names[1]
    assert names[0].startswith("convnet_") and SampleQuality().encoder_name == "pixels"


class Counting(Encoder):
    """Pixels, and how many images were asked for."""

    def __init__(self, spec, scale=1.0):
        super().__init__()
        self.spec, self.embed_dim, self.count = spec, 64, 0
        self.scale = nn.Parameter(torch.tensor(scale))

    def embed(self, batch):
        self.count += len(batch["image"])
        return self.scale * batch["image"].flatten(1).float() / 255


def test_real_images_are_looked_at_once_in_a_process_and_once_on_a_machine(cache):
    datamodule = ArrayImages(num_samples=100)
    fakes = FromImages(datamodule.columns("train")["image"])

    def run(encoder, datamodule, protocol=None, split="test", **settings):
        protocol = protocol or SampleQuality(encoder=encoder, encoder_name="mine", num_samples=30, **settings)
        before = encoder.count
        metrics = protocol.run(fakes, datamodule, device=CPU, split=split)
        return metrics, encoder.count - before, protocol

    encoder = Counting(datamodule.spec)
    first, looked_at, protocol = run(encoder, datamodule)
    assert looked_at == 30 + 2 * 100
    assert run(encoder, datamodule, protocol)[:2] == (first, 30)
    again, looked_at, _ = run(Counting(datamodule.spec), ArrayImages(num_samples=100))
    assert (again, looked_at) == (first, 30)  # another encoder with the same weights, as in another process
    assert run(encoder, datamodule, split="val")[1] == 30 + 100
    assert run(encoder, datamodule, seed=1)[1] == 30
    assert run(encoder, ArrayImages(num_samples=101))[1] == 30 + 2 * 101
    assert run(Counting(datamodule.spec, scale=2.0), datamodule)[1] == 30 + 2 * 100
    for folder in cache.iterdir():
        assert folder.name.startswith("real-images-")


def test_other_pixels_are_other_images():
    class Changed(ArrayImages):
        def columns(self, split):
            columns = super().columns(split)
            columns["image"][5, 0, 3, 3] ^= 1
            return columns

    digests = {content_digest(data, split) for data in (ArrayImages(), Changed()) for split in ("train", "test")}
    assert len(digests) == 4
    assert content_digest(ArrayImages(), "train") == content_digest(ArrayImages(), "pretrain")
    assert content_digest(ArrayImages(labels=False), "train") not in digests


def test_large_splits_are_looked_at_in_part(monkeypatch):
    monkeypatch.setattr(real_images, "MAX_REAL", 40)
    datamodule = ArrayImages(num_samples=100)
    found = real_images.real_features(datamodule.spec.raw, datamodule, "train", CPU)
    stored = datamodule.columns("train")
    rows = (found["x"].unsqueeze(1) == stored["image"].flatten(1) / 255).all(2).int().argmax(1)
    assert len(found["x"]) == len(rows.unique()) == 40
    assert torch.equal(found["y"], stored["label"][rows]) and len(found["y"].unique()) == 2


def test_an_encoder_of_other_channels_is_refused():
    encoder = ConvNet(ArrayImages(shape=(3, 8, 8)).spec, widths=(8,))
    with pytest.raises(ValueError, match="reads images of 3 channels, and the data have 1"):
        score(ArrayImages().columns("train")["image"], encoder=encoder, encoder_name="colours")
