"""Any network of torchvision, timm, transformers or your own as an encoder of images."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lab.encoders.image import ImageEncoder
from ssl_lab.modalities.image import ImageSpec

_HEADS = ("fc", "classifier", "heads", "head")
"""Names of classifiers in torchvision."""
_USUAL_SIZE = 224


class Network(ImageEncoder):
    """A bare network without its classifier; it shares its weights with the network that was given.

    The classifier of a network of torchvision, timm or transformers is left out. What any other network returns is taken
    as it is: features (B, D), maps (B, D, h, w), which are averaged, or tokens (B, T, D), of which the first is taken.

    Args:
        network: Takes normalised images (B, C, H, W).
        spec: The image data; None as long as they are not known, see :meth:`fit_to`.
        mean: Mean of each channel that the network was trained with; None for timm's or, without, that of the data.
        std: Its standard deviation.

    Attributes:
        size: Height and width that images are resized to (bilinear), where the network takes one size alone.

    Raises:
        ValueError: If it returns no features for images of this size, or was built for another number of channels.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: ImageSpec | None = None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        channels = _channels_of(network)
        for name, values in (("mean", mean), ("std", std)):
            if values is not None and len(values) != channels:
                raise ValueError(
                    f"Cannot normalise by {name}= of {len(values)} numbers: {type(network).__name__} takes {channels} "
                    "channels. Give one for each."
                )
        published = getattr(network, "pretrained_cfg", None) or {}
        size = _only_size(network, published)
        side = size or (_USUAL_SIZE, _USUAL_SIZE)
        found = spec or ImageSpec(shape=(channels, *side), mean=(0.5,) * channels, std=(0.25,) * channels)
        super().__init__(found, embed_dim=1)
        self.name = type(network).__name__
        self.size = size
        self.network = _without_classifier(network)
        self._own = (
            mean if mean is not None else published.get("mean"),
            std if std is not None else published.get("std"),
        )
        self.fit_to(found)
        self.embed_dim = self._probe()

    def fit_to(self, spec: ImageSpec) -> None:
        """Take the channel statistics of data, unless the network has its own.

        Raises:
            ValueError: If they have another number of channels.
        """
        channels = _channels_of(self.network)
        if spec.shape[0] != channels:
            raise ValueError(
                f"Cannot use {self.name} on {spec}: its first layer takes {channels} channels. Convert the images to "
                f"{'RGB' if channels == 3 else 'grey'}, or build the network for {spec.shape[0]}."
            )
        self.spec = spec
        for name, own, of_data in (("mean", self._own[0], spec.mean), ("std", self._own[1], spec.std)):
            values = torch.tensor(own if own is not None and len(own) == channels else of_data, dtype=torch.float32)
            setattr(self, name, values.view(-1, 1, 1).to(getattr(self, name).device))

    def encode(self, x: Tensor) -> Tensor:
        """The network's features."""
        if self.size is not None and tuple(x.shape[2:]) != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True, align_corners=False)
        return _pooled(self.network(x), self.name)

    def fresh(self) -> Network:
        """A copy with random weights: layers as when they are new, single parameters from a narrow normal distribution."""
        other = copy.deepcopy(self)
        reset(other.network)
        return other

    @torch.no_grad()
    def _probe(self) -> int:
        modes = {module: module.training for module in self.modules()}
        device = next(self.network.parameters()).device
        try:
            features = self.eval().to(device).encode(self.spec.example(2)["image"].to(device))
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            raise ValueError(
                f"Cannot use {self.name} as an encoder of {self.spec}: {str(error).splitlines()[0]}. Give a network "
                "that takes "
                "one tensor (B, C, H, W) of this size, or other images."
            ) from error
        finally:
            for module, mode in modes.items():
                module.training = mode
        return int(features.shape[1])


def reset(network: nn.Module) -> None:
    """Draw all weights again: layers by their own initialisation, single parameters such as class tokens narrowly."""
    drawn: set[int] = set()
    for module in network.modules():
        draw: Any = getattr(module, "reset_parameters", None)
        if draw is not None:
            draw()
            drawn |= {id(p) for p in module.parameters(recurse=False)}
    for p in network.parameters():
        if id(p) not in drawn:
            nn.init.trunc_normal_(p.data, std=0.02)


def _pooled(output: Any, name: str) -> Tensor:
    """Features (B, D) from the output of a network.

    Raises:
        ValueError: If it returns something else.
    """
    output = getattr(output, "last_hidden_state", output)
    if isinstance(output, Tensor):
        if output.ndim == 2:
            return output
        if output.ndim == 3:
            return output[:, 0]
        if output.ndim == 4:
            return output.flatten(2).mean(2)
    found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise ValueError(f"{name} returns {found}, which holds no features (B, D), (B, T, D) or (B, D, h, w)")


def _without_classifier(network: nn.Module) -> nn.Module:
    """The network with its classifier replaced by nothing: another object around the same layers."""
    trunk = copy.copy(network)
    trunk.__dict__["_modules"] = dict(network._modules)
    if hasattr(trunk, "reset_classifier"):  # timm's, which changes the head in place
        for name in _HEADS:
            if isinstance(child := trunk._modules.get(name), nn.Module):
                trunk._modules[name] = copy.deepcopy(child)
        trunk.reset_classifier(0)  # type: ignore[operator]
        return trunk
    base = getattr(network, "base_model", None)  # transformers', with a head on top
    if isinstance(base, nn.Module) and hasattr(network, "config"):
        return base
    if type(network).__module__.startswith("torchvision."):
        for name in _HEADS:
            if name in trunk._modules:
                trunk._modules[name] = nn.Identity()
    return trunk


def _channels_of(network: nn.Module) -> int:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return 3


def _only_size(network: nn.Module, published: Any) -> tuple[int, int] | None:
    """The size that images must have, where the network says that there is one alone."""
    embed = getattr(network, "patch_embed", None)
    if published.get("fixed_input_size") and not getattr(network, "dynamic_img_size", False):
        height, width = getattr(embed, "img_size", None) or published["input_size"][1:]
        return int(height), int(width)
    found = getattr(network, "image_size", None) or getattr(getattr(network, "config", None), "image_size", None)
    if isinstance(found, int):
        return found, found
    return None
