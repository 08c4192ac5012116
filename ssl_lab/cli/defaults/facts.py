"""Facts of data and machine, and the settings that are chosen from them."""

from __future__ import annotations

from dataclasses import dataclass

from ssl_lab.types import Spec


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts that settings are chosen from.

    Attributes:
        spec: Facts of the data, such as an :class:`~ssl_lab.modalities.image.ImageSpec` with its shape (C, H, W).
        num_samples: Samples of the split that is trained on.
        labelled: Whether the ``train`` split has labels.
        device: Type of the device that trains: ``cpu``, ``cuda`` or ``mps``.
        mirrored: Whether mirrored images are such images too; None for other data.
    """

    spec: Spec
    num_samples: int
    labelled: bool
    device: str
    mirrored: bool | None = None


@dataclass(frozen=True)
class Choice:
    """A chosen setting.

    Attributes:
        override: The setting in Hydra's grammar, such as ``optim.lr=0.002`` or ``views@method.views=digits``.
        reason: The fact that it follows from, such as ``grey images``.
    """

    override: str
    reason: str
