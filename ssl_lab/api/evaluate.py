"""``ssl_lab.evaluate``: any network judged beside raw input and itself with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

from ssl_lab.api.recognise import recognise
from ssl_lab.api.results import Results
from ssl_lab.api.run import Run
from ssl_lab.cli.from_python import overrides_of, run_command


def evaluate(
    encoder: Any,
    data: Any,
    *,
    labels: Any = None,
    image_size: int | None = None,
    tokenizer: Any = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **settings: Any,
) -> Results:
    """Judge the features of any network on labelled or unlabelled data, beside raw input and the network with random weights.

    Probes are fitted to ``train`` and scored on ``test``, which is cut from the samples if there is none; no label is
    trained on. Nothing is written but the data and results of baselines, in the cache folder.

    Args:
        encoder: A network for images: of torchvision or timm, whose classifier is left out, an image model of transformers,
            an encoder of ssl_lab, or any module from (B, C, H, W) to features (B, D). For texts, a model of transformers,
            whose states are averaged over the tokens. A :class:`ssl_lab.Run` is judged by :meth:`ssl_lab.Run.evaluate`.
        data: As for :func:`ssl_lab.pretrain`.
        labels: A label for each sample; without, the evaluation is the label-free one.
        image_size: What images that differ in size are resized to.
        tokenizer: The model's tokenizer, for texts.
        mean: Mean of each channel, in [0, 1], by which the network wants its images normalised; by default timm's or, for
            other networks, that of the data.
        std: The standard deviation likewise.
        **settings: Settings of ``ssl-lab evaluate``: ``evaluation=``, ``split=``, ``data__test_fraction=`` and so on.

    Returns:
        Metrics by row: raw input, random encoder, and the network by the name of its class.

    Raises:
        ValueError: If the network cannot read the data, or settings are wrong.

    Example:
        >>> ssl_lab.evaluate(timm.create_model("resnet10t", pretrained=True), images, labels=labels)
    """
    if isinstance(encoder, Run):
        for name, value in (("tokenizer", tokenizer), ("mean", mean), ("std", std)):
            if value is not None:
                raise ValueError(f"{name}= has no effect on a Run, which has its own. Leave it out.")
        return encoder.evaluate(data, labels=labels, image_size=image_size, **settings)
    _check_network(encoder)
    given = recognise(data, labels=labels, image_size=image_size)
    chosen: dict[str, Any] = {"run": "none", **given.settings()}
    if not {"evaluation"} & set(settings):
        chosen["evaluation"] = "label_free" if given.labelled is False else "features"
    with TemporaryDirectory() as folder:
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
            chosen["data.tokenizer"] = folder
        args = overrides_of({**chosen, **settings})
        return Results(run_command("evaluate", args, lambda cfg: _judge(encoder, cfg, mean, std)))


def _check_network(encoder: Any) -> None:
    import torch

    if isinstance(encoder, type) and issubclass(encoder, torch.nn.Module):
        raise ValueError(f"Cannot judge the class {encoder.__name__}. Give a network: {encoder.__name__}(...).")
    if not isinstance(encoder, torch.nn.Module):
        raise ValueError(
            f"Cannot judge a {type(encoder).__name__} as a network. Give a torch.nn.Module, then the data; open a run by "
            "ssl_lab.open_run(DIR)."
        )


def _judge(network: Any, cfg: Any, mean: Sequence[float] | None, std: Sequence[float] | None) -> dict[str, Any]:
    from copy import deepcopy

    import lightning as L

    from ssl_lab.cli import build
    from ssl_lab.devices import find_device
    from ssl_lab.engine.baselines import baseline_rows
    from ssl_lab.engine.judge import data_facts
    from ssl_lab.evaluation.evaluate import measure
    from ssl_lab.evaluation.on_data import data_of, inner
    from ssl_lab.evaluation.samples.real_images import module_digest
    from ssl_lab.measured import merged
    from ssl_lab.metrics import descriptions

    L.seed_everything(0, verbose=False)
    datamodule = build.build_data(cfg.data, seed=0)
    protocols = build.build_protocols(cfg.evaluation, lambda node: build.build_data(node, seed=0))
    encoder = _encoder(network, datamodule.spec, mean, std)
    device = find_device()
    modes, place = {module: module.training for module in network.modules()}, next(network.parameters()).device
    random = encoder.fresh() if hasattr(encoder, "fresh") else _reset(deepcopy(encoder))
    random.pretrained = False
    baselines = baseline_rows(protocols if cfg.baselines else [], datamodule, random, device=device, split=cfg.split)
    encoder.to(device).eval()
    try:
        found = measure({"features": encoder.embed}, protocols, datamodule, device=device, split=cfg.split)
    finally:
        network.to(place)
        for module, mode in modes.items():
            module.training = mode
    name, weights = type(network).__name__, module_digest(encoder)[:12]
    records = [
        {
            "protocol": type(inner(protocol)).__name__,
            "settings": protocol.settings,
            "split": cfg.split,
            "data": data_facts(data_of(protocol, datamodule), cfg.split),
            "weights": weights,
            "described": descriptions(protocol.metrics, metrics),
            "baselines": {baseline.name: baseline.kind for baseline in baselines if baseline.metrics[k]},
            "metrics": {
                **{baseline.name: dict(baseline.metrics[k]) for baseline in baselines if baseline.metrics[k]},
                name: metrics,
            },
        }
        for k, (protocol, metrics) in enumerate(zip(protocols, found, strict=True))
        if metrics
    ]
    return merged([], records)


def _encoder(network: Any, spec: Any, mean: Sequence[float] | None, std: Sequence[float] | None) -> Any:
    """The network as an encoder of these data."""
    from ssl_lab.modalities.image import ImageSpec
    from ssl_lab.types import Encoder

    if (mean is not None or std is not None) and (isinstance(network, Encoder) or not isinstance(spec, ImageSpec)):
        reads = "normalises images itself" if isinstance(network, Encoder) else "reads no images"
        raise ValueError(f"mean= and std= have no effect: {type(network).__name__} {reads}. Leave them out.")
    if isinstance(network, Encoder):
        if not network.spec.accepts(spec):
            raise ValueError(
                f"Cannot judge {type(network).__name__} on {spec}: it reads {network.spec}. Give such data."
            )
        return network
    from ssl_lab.encoders.network import Network

    if isinstance(spec, ImageSpec):
        return Network(network, spec, mean=mean, std=std)
    from ssl_lab.encoders.text_network import TextNetwork

    return TextNetwork(network, spec)


def _reset(encoder: Any) -> Any:
    """The same encoder with layers as when they are new."""
    from ssl_lab.encoders.network import reset

    reset(encoder)
    return encoder
