"""FID's path through torch-fidelity, on a network with random weights: none are downloaded."""

import hashlib

import pytest
import torch
from arrays import ArrayImages
from torch_fidelity import feature_extractor_inceptionv3 as inception
from torchmetrics.image.fid import NoTrainInceptionV3

from ssl_lab.evaluation.samples import fid
from ssl_lab.evaluation.samples.distances import frechet_distance
from ssl_lab.evaluation.samples.fid import FID

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / fid.WEIGHTS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *args, **settings: {})
        patch.setattr(inception.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        network = inception.FeatureExtractorInceptionV3("random", ["2048"])
    state = {name: value * 6**0.5 if "conv.weight" in name else value for name, value in network.state_dict().items()}
    torch.save(state, path)  # scaled so that a ReLU keeps the variance
    return path


@pytest.fixture
def reference(weights, tmp_path, monkeypatch):
    """The random weights in place of the reference's."""
    monkeypatch.setattr(fid, "DIGEST", hashlib.sha256(weights.read_bytes()).hexdigest()[:8])
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "cache"))
    return weights


def from_test_split(num_samples, generator):
    return ArrayImages().columns("test")["image"][:num_samples] / 255


def test_distance_is_that_of_torchmetrics_features_without_antialias(reference):
    datamodule = ArrayImages(num_samples=4)
    found = FID(weights=str(reference), num_samples=3).run(from_test_split, datamodule, device=CPU)
    theirs = NoTrainInceptionV3("theirs", ["2048"], str(reference), antialias=False)
    real, fake = (
        theirs._torch_fidelity_forward(images.repeat(1, 3, 1, 1))[0]
        for images in (datamodule.columns("train")["image"], ArrayImages().columns("test")["image"][:3])
    )
    assert real.std(0).mean() > 1e-3, "features that hardly differ would prove nothing"
    assert list(found) == ["fid/bilinear_n3_train4"]
    assert found["fid/bilinear_n3_train4"] == pytest.approx(frechet_distance(fake, real), rel=1e-3)


def test_real_moments_are_kept(reference, monkeypatch):
    protocol = FID(weights=str(reference), num_samples=2)
    protocol.__dict__["inception"] = lambda images: (images.flatten(1)[:, :20].double(),)
    protocol.inception.to = lambda device: None
    first = protocol.run(from_test_split, ArrayImages(num_samples=9), device=CPU)
    monkeypatch.setattr(fid, "real_features", None)
    assert protocol.run(from_test_split, ArrayImages(num_samples=9), device=CPU) == first


def test_missing_weights_are_one_message_that_says_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    place = tmp_path / "checkpoints" / fid.WEIGHTS
    with pytest.raises(ValueError, match=f"no file {place}. Fetch https://.*6726825d.pth where there is a network"):
        FID()
    with pytest.raises(ValueError, match="no file .*elsewhere.pth"):
        FID(weights=str(tmp_path / "elsewhere.pth"))


def test_other_weights_are_not_called_fid(weights):
    with pytest.raises(ValueError, match="whose SHA-256 begins with 6726825d, but that of"):
        FID(weights=str(weights))


def test_a_file_with_code_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    torch.save({"layer": print}, path)
    monkeypatch.setattr(fid, "DIGEST", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    with pytest.raises(Exception, match="[Ww]eights.only"):
        _ = FID(weights=str(path)).inception


def test_a_single_sample_is_refused():
    with pytest.raises(ValueError, match="num_samples=1"):
        FID(num_samples=1)


def test_weights_in_the_format_before_torch_1_6_are_read(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    torch.save({"layer": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    monkeypatch.setattr(fid, "DIGEST", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    made = []
    monkeypatch.setattr(inception, "FeatureExtractorInceptionV3", lambda *args: made.append(args))
    _ = FID(weights=str(path)).inception
    assert made == [("inception-v3-compat", ["2048"], str(path))]
