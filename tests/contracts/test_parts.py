"""The checks of ssl_lab.testing hold for the lab's own encoders, views, data, protocols and tasks, and find what is wrong."""

from functools import lru_cache

import pytest
import torch
import yaml
from arrays import ArrayCaptions, ArrayImages, ArrayText, ArrayTextPairs
from contracts.test_methods import build as build_method
from encoders.test_layers import TIMM
from encoders.test_layers import build as build_encoder
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from tasks.tiny import LabelledText, optim
from tasks.tiny import encoder as text_encoder

from ssl_lab.cli.instantiate import instantiate
from ssl_lab.cli.paths import choices, config_dir
from ssl_lab.data.image.digits import Digits
from ssl_lab.data.image.shapes import Shapes
from ssl_lab.data.text.python_docs import PythonDocs
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.evaluation.probes.knn import KNN
from ssl_lab.optim import AdamW
from ssl_lab.pretext.base import Views
from ssl_lab.tasks.classification import Classification, ClassScores
from ssl_lab.tasks.similarity import PairScores, Similarity
from ssl_lab.tasks.text_classification import TextClassification
from ssl_lab.testing import check_data, check_encoder, check_protocol, check_task, check_views
from ssl_lab.types import Encoder

ENCODERS = [
    *("bert_tiny", "roberta_mini", "modernbert_mini", "gpt2_mini", "t5_mini"),
    *("convnet", "mlp", "dcgan", "sngan", "resnet18", "code_gpt_mini", "dual", *TIMM),
]


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(name):
    check_encoder(lambda: build_encoder(name, on="cpu"))


@pytest.mark.parametrize("name", sorted(choices("views")))
def test_views(name):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        views = instantiate(compose("pretrain", [f"views@method.views={name}"]).method.views, _convert_="all")
    if isinstance(views, Views):  # not what draws a single view
        check_views(views, ArrayImages(shape=(3, 16, 16)).spec)


DATA = {
    "digits": Digits,
    "shapes": lambda: Shapes(num_train=64, num_val=32, num_test=32, batch_size=16),
    "python_docs": lambda: PythonDocs(batch_size=8),
    "pairs": ArrayCaptions,
}


@pytest.mark.parametrize("name", DATA)
def test_data(name):
    check_data(DATA[name])


METHODS = {
    **dict.fromkeys(("LikelihoodBound", "LatentUse", "ImportanceNLL"), "vae"),
    **dict.fromkeys(("MaskedPrediction", "PseudoPerplexity"), "mlm"),
    **{"LanguageModelling": "causal_lm", "Denoising": "span_denoising", "CodePrediction": "image_gpt"},
    **{"SampleQuality": "gan", "Retrieval": "clip", "STS": "simcse_supervised"},
}
FEWER = {"ImportanceNLL": {"num_samples": 20, "chunk_size": 10}, "SampleQuality": {"num_samples": 200}}
FACTORS = ("MIG", "DCI")
LACKING = {"FID", "ZeroShot"}  # downloaded weights, a tokenizer of words
PROTOCOLS = {
    target.rsplit(".", 1)[1]: target
    for path in sorted((config_dir() / "evaluation").glob("*.yaml"))
    for name, node in yaml.safe_load(path.read_text()).items()
    if name != "defaults"
    for target in [node["_target_"]]
}
method_named = lru_cache(build_method)


@pytest.mark.parametrize("name", sorted(set(PROTOCOLS) - LACKING))
def test_protocols(name):
    protocol = get_class(PROTOCOLS[name])(**FEWER.get(name, {}))
    if name in FACTORS:
        data = Shapes(num_train=64, num_val=64, num_test=32, image_size=8)
        check_protocol(protocol, data.spec.raw, data)
    else:
        method, data = method_named(METHODS.get(name, "simclr"))
        check_protocol(protocol, method.capabilities()[protocol.needs], data)


def test_tasks():
    images, text, pairs = ArrayImages(), LabelledText(), ArrayTextPairs()
    check_task(
        lambda **more: Classification(ConvNet(images.spec, widths=(4, 8)), optim(), **more), images, ClassScores()
    )
    check_task(lambda **more: TextClassification(text_encoder(text.spec), optim(), **more), text, ClassScores())
    check_task(lambda **more: Similarity(text_encoder(pairs.spec), optim(), **more), pairs, PairScores())


class Broken(Encoder):
    """What a setting of ``fault`` makes of a linear layer."""

    def __init__(self, fault):
        super().__init__()
        self.fault, self.spec, self.embed_dim = fault, ArrayImages().spec, 4
        self.layer = torch.nn.Linear(64, 4)

    def embed(self, batch):
        x = batch["image"].flatten(1)
        if self.fault == "noise":
            x = x + torch.randn_like(x)
        if self.fault == "neighbours":
            x = x - x.mean(0)
        if self.fault == "inplace":
            batch["image"].mul_(2)
        h = self.layer(x)
        return h.detach() if self.fault == "detached" else h[:, :3] if self.fault == "width" else h


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("noise", "differ from one call to the next"),
        ("neighbours", "depend on the rest of the batch"),
        ("inplace", "changes the batch it reads"),
        ("width", r"should be \(5, embed_dim\) = \(5, 4\), found \(5, 3\)"),
    ],
)
def test_what_an_encoder_lacks_is_said_in_words(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_encoder(lambda: Broken(fault))


class Global(Views):
    """Views from the global stream."""

    takes = type(ArrayImages().spec)

    def forward(self, batch, generator=None):
        x = torch.cat([batch["image"]] * 2)
        return {"image": (x + 0.1 * torch.rand_like(x)).clamp(0, 1)}


class Undeclared(KNN):
    metrics = {}


class Endless(ArrayImages):
    """Labels beyond the classes."""

    def columns(self, split):
        columns = super().columns(split)
        return {**columns, "label": columns["label"] + 1}


def test_what_other_parts_lack_is_said_in_words():
    data = ArrayImages()
    with pytest.raises(AssertionError, match="Global draws from the global stream"):
        check_views(Global(), data.spec)
    with pytest.raises(AssertionError, match="Undeclared does not declare knn/top1"):
        check_protocol(Undeclared(), data.spec.raw, data)
    with pytest.raises(AssertionError, match="Endless has the class 2, but label has 2 classes"):
        check_data(Endless)
    with pytest.raises(AssertionError, match="ArrayText has .* samples both in pretrain and in val"):
        check_data(ArrayText)

    def thawing(**settings):
        return Classification(ConvNet(data.spec, widths=(4,)), AdamW(lr=0.1))

    with pytest.raises(AssertionError, match="Classification changes .* of a frozen encoder"):
        check_task(thawing, data)
