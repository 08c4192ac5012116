"""The only code that talks to torch.distributed; each function is the identity with a single process."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

T = TypeVar("T")


def rank() -> int:
    """Rank of this process, 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Gather(torch.autograd.Function):
    """All-gather whose backward sums what every rank contributes to this rank's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.batch_size = x.shape[0]
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        start = rank() * ctx.batch_size
        return total[start : start + ctx.batch_size]


def gather(x: Tensor) -> Tensor:
    """Rows of all ranks in rank order, shape (world * B, ...), with gradient.

    The backward pass sums the gradient over ranks. If every rank computes the same loss on the gathered batch, each
    gets ``world`` times its share of the gradient; DDP's average over ranks is then exactly the gradient of the loss
    over the joined batch.
    """
    return _Gather.apply(x) if world_size() > 1 else x  # type: ignore[no-any-return]


def own_rows(joined: Tensor) -> Tensor:
    """This rank's rows of what :func:`gather` has joined."""
    return joined.chunk(world_size())[rank()]


class _Sum(torch.autograd.Function):
    """Sum over ranks whose backward sums the gradients of all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the joined batch of all ranks, on any device (torch's own needs a GPU)."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"Batch normalisation needs an input (B, C, ...), found {tuple(input.shape)}.")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, ...) over all but the channel dimension and over ranks."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        dims = [d for d in range(x.ndim) if d != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = reduce_sum(torch.tensor(x.numel() // x.shape[1], dtype=x.dtype, device=x.device))
        mean = _Sum.apply(x.sum(dims)) / count
        centred = x - mean.view(shape)
        var = _Sum.apply(centred.square().sum(dims)) / count
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                assert self.num_batches_tracked is not None
                self.num_batches_tracked += 1
                momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(var * count / (count - 1), momentum)
        out = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)


def refuse_fused_batch_norm(module: nn.Module) -> None:
    """Raise ValueError if a batch normalisation does more than torch's, such as timm's with an activation inside.

    Replacing it by a synchronised one would silently drop the rest.
    """
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, SyncBatchNorm):
            if type(child).forward not in (nn.modules.batchnorm._BatchNorm.forward, nn.SyncBatchNorm.forward):
                raise ValueError(
                    f"Batch statistics cannot be synchronised over ranks in {type(child).__name__}, which does more than "
                    "normalise. Set trainer.sync_batchnorm=false, or choose another encoder."
                )


def synchronise_batch_norm(module: nn.Module) -> nn.Module:
    """The module with every batch normalisation replaced by :class:`SyncBatchNorm`, parameters shared."""
    refuse_fused_batch_norm(module)
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, SyncBatchNorm):
            synced = SyncBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            synced.weight, synced.bias = child.weight, child.bias
            for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(synced, buffer, getattr(child, buffer))
            synced.train(child.training)
            setattr(module, name, synced)
        else:
            synchronise_batch_norm(child)
    return module


def reduce_sum(x: Tensor) -> Tensor:
    """Sum over ranks, without gradient."""
    x = x.detach().clone()
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def any_rank(flag: bool, device: torch.device) -> bool:
    """True on every rank if it is true on one."""
    return bool(reduce_sum(torch.tensor(float(flag), device=device)) > 0) if world_size() > 1 else flag


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over ranks, in one reduction of a flat buffer."""
    if world_size() == 1:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= world_size()
    for grad, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def gradient_norm(parameters: Iterable[torch.nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients together, on their device; of sharded ones over all ranks, which all must ask."""
    return whole(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))


def broadcast_object(value: T) -> T:
    """Rank 0's picklable value, on every rank."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def on_first_rank(action: Callable[[], T]) -> T:
    """Run an action on rank 0 alone, such as writing a file: every rank gets its value, or raises its error.

    An error on rank 0 alone would leave the others waiting for it, or with nothing but a broken connection to tell.
    """
    if world_size() == 1:
        return action()
    value: T | None = None
    error: Exception | None = None
    if rank() == 0:
        try:
            value = action()
        except Exception as raised:
            error = raised
    value, failure = broadcast_object((value, None if error is None else _as_sent(error)))
    if failure is not None:
        raise error if error is not None else failure  # rank 0 with its own trace
    return value  # type: ignore[return-value]


def from_every_rank(action: Callable[[], T]) -> list[T]:
    """Run an action on each rank: all get all results in rank order, or raise the error of the first that failed."""
    if world_size() == 1:
        return [action()]
    value: T | None = None
    error: Exception | None = None
    try:
        value = action()
    except Exception as raised:
        error = raised
    found = gather_objects((value, None if error is None else _as_sent(error)))
    for k, (_, failure) in enumerate(found):
        if failure is not None:
            raise error if error is not None and k == rank() else failure  # its own with its trace
    return [value for value, _ in found]  # type: ignore[misc]


def _as_sent(error: Exception) -> Exception:
    """The error, or one with its message if it cannot travel between processes."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a class of the user's raises there
        message = str(error) if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: {error}"
        return RuntimeError(message)
    return error


def gather_objects(value: T) -> list[T]:
    """Every rank's picklable value, in rank order, on every rank."""
    if world_size() == 1:
        return [value]
    box: list[Any] = [None] * world_size()
    dist.all_gather_object(box, value)
    return box


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.barrier()


def shard(module: nn.Module, blocks: Sequence[nn.Module], mesh: DeviceMesh) -> None:
    """Spread every parameter of a module over the ranks of a mesh (FSDP2), in place.

    A block's parameters are whole on a rank while the block computes; all others while the module's own forward runs.
    """
    for p in module.parameters():
        p.data = p.data.contiguous()  # kernels of convolutions may lie channels last, which cannot be sharded
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


def own_shard(x: Tensor) -> Tensor:
    """Return this rank's shard of a sharded tensor; any other tensor as it is."""
    return x.to_local() if isinstance(x, DTensor) else x


def whole(x: Tensor) -> Tensor:
    """All of a sharded tensor, on every rank, which all must ask for it; any other tensor as it is."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def shard_like(x: Tensor, like: Tensor) -> Tensor:
    """A tensor that every rank holds as a whole, sharded as ``like`` is; as it is if that is not sharded."""
    if not isinstance(like, DTensor):
        return x
    return distribute_tensor(x.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def first_proposal(key: str, proposal: str) -> str:
    """Return the first process's proposal for a key, before there is a process group; asks torchrun's own store."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(minutes=5))  # type: ignore[attr-defined]
    return store.compare_set(key, "", proposal).decode()  # type: ignore[no-any-return]
