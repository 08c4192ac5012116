"""Training with parameters, gradients and optimizer state spread over ranks."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from ssl_lab import distributed
from ssl_lab.layers import repeated_blocks
from ssl_lab.methods.base import Method
from ssl_lab.types import Encoder

PRECISIONS = ("32-true", "bf16-mixed")


class Sharded(ModelParallelStrategy):
    """Fully sharded data parallelism (FSDP2): each rank holds a share of every parameter and of the optimizer's state.

    Blocks of the network are gathered one at a time, for their forward and backward pass; what lies outside of blocks,
    such as embeddings and heads, for a whole step. Losses and weights are those of DDP.

    Checkpoints hold whole tensors under the names and in the order of any other strategy, written by rank 0, whose main
    memory has to hold weights and optimizer state once. So a run may resume with another number of ranks or another
    strategy, and needs no consolidation. Evaluation and pictures use :meth:`gather`.

    Args:
        data_parallel_size: Ranks that share the parameters; ``auto``, which is all of them, is the only choice.

    Raises:
        ValueError: If another size is asked for.
    """

    def __init__(self, data_parallel_size: Literal["auto"] = "auto") -> None:
        if data_parallel_size != "auto":
            raise ValueError(
                f"Parameters are sharded over all ranks, found data_parallel_size={data_parallel_size}. Set "
                "trainer.strategy.data_parallel_size=auto."
            )
        super().__init__(data_parallel_size="auto", tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """All ranks of all hosts share the parameters."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: L.Trainer) -> None:
        """Shard the method, which has its weights by now, and then build the optimizers over the shards.

        Raises:
            ValueError: If the method or a setting of the trainer does not work sharded.
        """
        method, accelerator = self.lightning_module, self.accelerator
        assert isinstance(method, Method) and accelerator is not None
        check_sharding(method, trainer)
        accelerator.setup(trainer)
        if layer_sync := getattr(self, "_layer_sync", None):
            layer_sync.apply(method)
        self._copy = deepcopy(method)
        distributed.shard(method, _blocks(method), self.device_mesh["data_parallel"])
        self.model_to_device()
        self.barrier()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
            self._unfuse()
        self.setup_precision_plugin()

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run the method's step inside its forward pass, which gathers parameters outside of blocks."""
        assert self.lightning_module is not None
        with self.precision_plugin.train_step_context():
            return self._forward_redirection(
                self.lightning_module, self.lightning_module, "training_step", *args, **kwargs
            )

    @torch.no_grad()
    def gather(self) -> Method:
        """A copy of the method with whole parameters on this rank's device; all ranks call this together."""
        assert self.lightning_module is not None
        copy = deepcopy(self._copy).to(self.root_device)
        own = copy.state_dict()
        for name, value in self.lightning_module.state_dict().items():
            own[name].copy_(distributed.whole(value))
        return copy

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Weights are loaded before they are sharded."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """The optimizer's state is loaded like that of any strategy."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights, one tensor at a time; empty on all ranks but the first."""
        assert self.lightning_module is not None
        return {k: v for k, v in _whole_on_first(self.lightning_module.state_dict()).items() if v is not None}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state, one tensor at a time; empty on all ranks but the first."""
        state = optimizer.state_dict()
        gathered = {number: _whole_on_first(values) for number, values in state["state"].items()}
        return {**state, "state": gathered} if self.is_global_zero else {}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load whole weights into the method, which is not sharded yet."""
        Strategy.load_model_state_dict(self, checkpoint, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load this rank's share of the whole state."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            numbers = [number for group in saved["param_groups"] for number in group["params"]]
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state = {
                number: {name: _shard_state(value, p) for name, value in saved["state"][number].items()}
                for number, p in zip(numbers, parameters, strict=True)
                if number in saved["state"]
            }
            optimizer.load_state_dict({**saved, "state": state})
        self._unfuse()

    def _unfuse(self) -> None:
        """The fused kernel of SGD, unlike Adam's, knows no shards."""
        for optimizer in self.optimizers:
            if isinstance(optimizer, SGD):
                for group in optimizer.param_groups:
                    group["fused"] = False

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """The file's contents on the CPU."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """One file, by rank 0."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)


def gathered(trainer: L.Trainer, method: Method) -> Method:
    """The method; if its parameters are sharded, a copy with whole ones, which all ranks ask for together."""
    strategy = trainer.strategy
    return strategy.gather() if isinstance(strategy, Sharded) else method


def _blocks(method: Method) -> list[nn.Module]:
    """Return the modules gathered one at a time: blocks named by encoders (also teachers), and of other networks."""
    encoders = [module for module in method.modules() if isinstance(module, Encoder)]
    inside = {module for encoder in encoders for module in encoder.modules()}
    named = dict.fromkeys(block for encoder in encoders for block in encoder.layer_groups().modules)
    return [*named, *(block for block in repeated_blocks(method) if block not in inside)]


def check_sharding(method: Method, trainer: L.Trainer) -> None:
    """Refuse what would go wrong with sharded parameters.

    Raises:
        ValueError: Naming what, why and the remedy.
    """
    by_hand = "" if method.automatic_optimization else "it steps its optimizers itself, network by network"
    scalars = [name for name, p in method.named_parameters() if p.ndim == 0]
    scalar = f"{', '.join(scalars)} is a single number, which cannot be divided" if scalars else ""
    if reason := by_hand or method.whole_by or scalar:
        raise ValueError(
            f"{type(method).__name__} cannot train with sharded parameters: {reason}. Use trainer=ddp instead of "
            "trainer=fsdp2."
        )
    if trainer.precision not in PRECISIONS:
        raise ValueError(
            f"Sharded parameters train in {' or '.join(PRECISIONS)}, found trainer.precision={trainer.precision}."
        )
    if any(module._compiled_call_impl is not None for module in method.modules()):
        raise ValueError("Compiled modules cannot be sharded. Set compile=false, or use trainer=ddp.")


def _whole_on_first(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with whole tensors in main memory on rank 0, and None for tensors on others."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Tensor):
            gathered = distributed.whole(value)
            found[name] = gathered.cpu() if distributed.rank() == 0 else None
        else:
            found[name] = value
    return found


def _shard_state(value: Any, parameter: Tensor) -> Any:
    """An optimizer's value for a parameter, sharded like it if it has the parameter's shape."""
    is_like = isinstance(value, Tensor) and value.shape == parameter.shape
    return distributed.shard_like(value, parameter) if is_like else value
