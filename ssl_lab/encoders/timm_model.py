"""Any image model of the timm library."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_lab.encoders.image import ImageEncoder, with_channels
from ssl_lab.extras import needed_to
from ssl_lab.limited import load_json
from ssl_lab.modalities.image import ImageSpec

with needed_to("use a model of timm"):
    import timm
    from timm.layers.pos_embed import resample_abs_pos_embed

_FORCE, _FORCE_NOT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_OF_FILES = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "pretrained_strict"}


class TimmModel(ImageEncoder):
    """A timm model without its classifier, by name.

    A model of timm's that is built for one image size is built for the data's.

    Args:
        spec: The image data it is built for.
        name: A name from ``timm.list_models()``, or ``local-dir:PATH``.
        pretrained: Start from the published weights (a download at first use).
        options: Further arguments of ``timm.create_model``, such as ``{patch_size: 4}``; a vision transformer takes views of
            other sizes with ``dynamic_img_size: true``.

    Attributes:
        arguments: What ``timm.create_model`` gets beyond the name to build the network again.

    Raises:
        ValueError: If timm has no such model (names close ones), or it does not take images of the data's size.
    """

    def __init__(
        self, spec: ImageSpec, *, name: str, pretrained: bool = False, options: dict[str, Any] | None = None
    ) -> None:
        if ":" not in name and not timm.is_model(name):
            close = timm.list_models(f"*{name.split('_')[0]}*")[:5]
            raise ValueError(f"timm has no model {name!r}; names like it: {close}. See timm.list_models().")
        if unwanted := sorted(_OF_FILES & set(options or {})):
            raise ValueError(
                f"encoder.options.{unwanted[0]} is not taken: it names files that could run code. Give "
                "encoder.pretrained=true, or encoder.name=local-dir:PATH."
            )
        saved = _saved_arguments(name)
        arguments = {"in_chans": spec.shape[0], **(options or {})}
        published = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
        if published is not None and published.fixed_input_size:
            arguments.setdefault("img_size", spec.shape[1:] or None)  # text has no size and is refused below
        with _tensors_alone():
            network: Any = timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments)
        super().__init__(spec, embed_dim=network.num_features)
        self.name = name
        self.pretrained = pretrained
        if pretrained:
            self.statistics = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
        self.network = network
        self.arguments = {**saved, **arguments}
        try:
            with torch.no_grad():
                network.eval()(torch.zeros(1, *spec.shape))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{name} does not take images of {spec.shape}: {error}. Set data.image_size, or "
                f"encoder.options.img_size={list(spec.shape[1:])} with a fitting encoder.options.patch_size."
            ) from error
        network.train()
        if hasattr(network, "forward_intermediates"):
            self.strides = tuple(dict.fromkeys(int(info["reduction"]) for info in network.feature_info))
        self.pooling = "class" if getattr(network, "global_pool", "") == "token" else "mean"

    @property
    def title(self) -> str:
        """The network's name in timm."""
        return re.split("[:/]", self.name)[-1]

    @classmethod
    def settings_in_run(cls, run_dir: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Without the published weights, which those of the run replace."""
        return {"pretrained": False} if settings.get("pretrained") else {}

    def converted(self, tensors: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], Sequence[str]]:
        """Position embeddings of another grid interpolated to that of the data's images, and a first layer for grey ones."""
        stem = self.network.pretrained_cfg.get("first_conv")
        found, notes = with_channels(tensors, f"{stem}.weight", self.spec.shape[0])
        own, there = getattr(self.network, "pos_embed", None), found.get("pos_embed")
        grid = getattr(getattr(self.network, "patch_embed", None), "grid_size", None)
        if own is None or there is None or grid is None or own.shape == there.shape or own.shape[-1] != there.shape[-1]:
            return found, notes
        num_prefix = own.shape[1] - grid[0] * grid[1]
        side = math.isqrt(there.shape[1] - num_prefix)
        if side * side + num_prefix != there.shape[1]:
            return found, notes
        resized = resample_abs_pos_embed(there, list(grid), [side, side], num_prefix_tokens=num_prefix)
        note = f"position embeddings interpolated from {side}x{side} to {grid[0]}x{grid[1]} patches"
        return {**found, "pos_embed": resized}, (*notes, note)

    def encode(self, x: Tensor) -> Tensor:
        """The model's pooled features."""
        return self.network(x)  # type: ignore[no-any-return]

    def encode_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """The last map of each stride and the pooled output; tokens of patches are arranged in their grid."""
        last, found = self.network.forward_intermediates(x, norm=True)
        by_stride = {int(info["reduction"]): y for info, y in zip(self.network.feature_info, found, strict=True)}
        if last.ndim == 3:
            last = last[:, getattr(self.network, "num_prefix_tokens", 0) :].mT.unflatten(2, found[-1].shape[2:])
        elif getattr(self.network, "output_fmt", "NCHW") == "NHWC":
            last = last.permute(0, 3, 1, 2)
        return *list(by_stride.values())[:-1], last


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """Within it no weights are unpickled as objects, whatever timm asks of ``torch.load``: some versions ask for that."""
    before = {name: os.environ.pop(name, None) for name in (_FORCE, _FORCE_NOT)}
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        del os.environ[_FORCE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _saved_arguments(name: str) -> dict[str, Any]:
    """Return the arguments beyond its name of a local timm model, such as an export of a run."""
    source, _, folder = name.partition(":")
    if source != "local-dir":
        return {}
    try:
        saved = load_json(Path(folder) / "config.json")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Cannot build {name}: there is no config.json in {Path(folder).absolute()}. Name a folder that timm has saved."
        ) from error
    if not timm.is_model(str(saved.get("architecture"))):
        raise ValueError(
            f"Cannot build {name}: {str(saved.get('architecture'))[:50]!r} in its config.json is not a model "
            "of timm's. Give a folder that timm or ssl-lab export wrote."
        )
    arguments = saved.get("model_args") or {}
    if not isinstance(arguments, dict) or _OF_FILES & set(arguments):
        raise ValueError(
            f"Cannot build {name}: model_args of its config.json should be a mapping that names no files. Restore the file."
        )
    return arguments
