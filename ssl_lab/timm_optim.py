"""Optimizers of timm by name, with the schedule and the parameter groups of all others."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ssl_lab.extras import needed_to
from ssl_lab.optim import Groups, Optim

_OURS = ("lr", "weight_decay")  # each parameter group has its own


@dataclass(frozen=True, kw_only=True)
class TimmOptim(Optim):
    """Any optimizer of ``timm.optim.list_optimizers()`` that needs gradients alone and resumes exactly.

    What ``options`` leaves out is as in ``timm.optim.create_optimizer_v2``. Weight decay is coupled or decoupled as the
    optimizer of that name has it (``lambw``, ``nadamw`` and others decouple it).

    Attributes:
        name: A name from ``timm.optim.list_optimizers()``, such as ``lion``.
        options: Further settings of the optimizer, such as ``betas``.
    """

    name: str
    lr: float = 1e-3
    weight_decay: float = 1e-2
    warmup_fraction: float = 0.05
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse what timm does not have, and settings that the optimizer does not know or take."""
        super().__post_init__()
        takes = _settings_of(self.name)
        for option in self.options or {}:
            if option in _OURS:
                raise ValueError(f"Cannot use optim.options.{option}: it is set as optim.{option}. Set that instead.")
            if option not in takes:
                close = difflib.get_close_matches(option, takes, n=1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise ValueError(
                    f"Cannot use optim.options.{option}: {self.name} has no such setting.{hint} Choose from: "
                    f"{', '.join(takes)}."
                )
        try:
            self.make_optimizer([{"params": [nn.Parameter(torch.zeros(2, 2))], "weight_decay": self.weight_decay}])
        except (ValueError, TypeError, AssertionError) as error:
            raise ValueError(
                f"Cannot build the optimizer {self.name}: {error}. Change optim.options, or choose another optim.name."
            ) from error

    def make_optimizer(self, groups: Groups) -> Optimizer:
        """Build the optimizer of that name, as timm does."""
        from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]

        return create_optimizer_v2(groups, opt=self.name, lr=self.lr, **dict(self.options or {}))


def _settings_of(name: str) -> list[str]:
    """Names of the settings that an optimizer has beside ours.

    Raises:
        MissingPackageError: If timm is not installed.
        ValueError: If timm has no such optimizer, or it cannot be used here.
    """
    with needed_to("use optim=timm"):
        from timm.optim import get_optimizer_class, get_optimizer_info, list_optimizers  # type: ignore[attr-defined]

    known = [str(one) for one in list_optimizers()]
    if name not in known:
        near = [one for one in known if name and (name in one or one in name)]
        near = list(dict.fromkeys([*difflib.get_close_matches(name.lower(), known, n=3), *near]))[:3]
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"Cannot use optim.name={name}: timm has no such optimizer.{hint} Choose from timm.optim.list_optimizers()."
        )
    if get_optimizer_info(name).second_order:
        raise ValueError(
            f"Cannot use optim.name={name}: it needs second derivatives, which no method computes. Choose another one."
        )
    if name.startswith("kron"):
        raise ValueError(
            f"Cannot use optim.name={name}: it draws from a random stream of its own that no checkpoint holds, so that a run "
            "could not resume exactly. Choose another one."
        )
    try:
        found = get_optimizer_class(name, bind_defaults=False)
    except (ImportError, AssertionError) as error:  # of Apex and bitsandbytes
        raise ValueError(f"Cannot use optim.name={name}: {error}. Choose another one.") from error
    names = list(inspect.signature(found).parameters)
    return [one for one in names[1:] if one not in _OURS]
