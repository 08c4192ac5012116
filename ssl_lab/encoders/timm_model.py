"""Any image model of the timm library."""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor

from ssl_lab.encoders.image import ImageEncoder
from ssl_lab.types import DataSpec


class TimmModel(ImageEncoder):
    """A timm model without its classifier, by name.

    Args:
        spec: The image data it is built for.
        name: A name from ``timm.list_models()``, or ``local-dir:PATH``.
        pretrained: Start from the published weights (a download at first use).
        options: Further arguments of ``timm.create_model``, such as ``{patch_size: 4, img_size: 32}``.

    Raises:
        ValueError: If timm has no such model (names close ones), or it does not fit the data's image size.
    """

    def __init__(
        self, spec: DataSpec, *, name: str, pretrained: bool = False, options: dict[str, Any] | None = None
    ) -> None:
        if ":" not in name and not timm.is_model(name):
            close = timm.list_models(f"*{name.split('_')[0]}*")[:5]
            raise ValueError(f"timm has no model {name!r}; names like it: {close}. See timm.list_models().")
        network: Any = timm.create_model(
            name, pretrained=pretrained, num_classes=0, in_chans=spec.shape[0] if spec.shape else 3, **(options or {})
        )
        super().__init__(spec, embed_dim=network.num_features)
        self.network = network
        expected = tuple(network.pretrained_cfg.get("input_size", ()))[1:]
        if network.pretrained_cfg.get("fixed_input_size") and "img_size" not in (options or {}):
            if expected != spec.shape[1:]:
                raise ValueError(
                    f"{name} takes images of {expected}, but the data has {spec.shape[1:]}. Set data.image_size, or "
                    f"encoder.options.img_size={spec.shape[1]} with a fitting encoder.options.patch_size."
                )

    def encode(self, x: Tensor) -> Tensor:
        """The model's pooled features."""
        return self.network(x)  # type: ignore[no-any-return]
