"""Train several networks in turn, each with its own optimizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn

from ssl_lab import distributed
from ssl_lab.methods.base import Method
from ssl_lab.optim import Optim
from ssl_lab.types import Encoder


@dataclass(frozen=True)
class Player:
    """Networks that one optimizer updates.

    Attributes:
        networks: What it updates.
        optim: Optimizer and schedule; the schedule counts this player's own steps.
        num_batches_per_step: It steps on every batch whose count is a multiple of this.
    """

    networks: tuple[nn.Module, ...]
    optim: Optim
    num_batches_per_step: int = 1


class AlternatingMethod(Method):
    """A method whose ``training_step`` gives each of its networks its own loss through :meth:`update`.

    The first player steps once per batch. Lightning counts these steps alone, so that ``trainer.max_steps``, ``global_step``
    and :meth:`progress` mean batches, however many others step beside it. Gradients are averaged over ranks once per player
    and step; DDP's own reduction, which would reduce all networks at every backward pass, is off.

    Args:
        encoder: The network whose features are wanted.
        optim: Optimizer, schedule and weight-decay groups as one value.
    """

    def __init__(self, encoder: Encoder, optim: Optim) -> None:
        super().__init__(encoder, optim)
        self.automatic_optimization = False

    @abstractmethod
    def players(self) -> Mapping[str, Player]:
        """Two players or more by name, the one first that steps once per batch."""

    def on_fit_start(self) -> None:
        """Refuse fp16; Lightning itself refuses accumulation and clipping where optimizers are stepped by hand."""
        if str(self.trainer.precision).startswith("16"):
            raise ValueError(
                f"{type(self).__name__} trains in bf16 or fp32, found trainer.precision={self.trainer.precision}: several "
                "optimizers would share one loss scale. Use trainer.precision=bf16-mixed."
            )

    def update(self, player: str, loss: Tensor) -> None:
        """One step of a player's optimizer and schedule down the gradient of its loss.

        The gradient reaches this player's parameters alone, whatever else the loss depends on.
        """
        number = list(self.players()).index(player)
        optimizer: Any = self.optimizers()[number]  # type: ignore[index]
        schedule: Any = self.lr_schedulers()[number]  # type: ignore[index]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.zero_grad()
        strategy = self.trainer.strategy
        with strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext():
            self.manual_backward(loss, inputs=parameters)
        distributed.average_gradients(parameters)
        if self._is_logged_step():
            self.log(f"optim/grad_norm_{player}", distributed.gradient_norm(parameters))
        if number == 0:
            optimizer.step()
        else:
            optimizer.optimizer.step()  # Lightning's wrapper would count it
        schedule.step()

    def configure_optimizers(self) -> Any:
        """Each player's optimizer and schedule, over as many steps as it will do."""
        num_batches = self.total_steps
        pairs = [
            player.optim.build(
                nn.ModuleList(player.networks), total_steps=max(1, num_batches // player.num_batches_per_step)
            )
            for player in self.players().values()
        ]
        return [optimizer for optimizer, _ in pairs], [schedule for _, schedule in pairs]
