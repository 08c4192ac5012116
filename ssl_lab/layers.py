"""The layers of a network in order, for freezing, layer decay, sharding and recomputation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The parameters of a network, each exactly once, from its input to its output.

    Attributes:
        name: Class of the network, for messages.
        embeddings: All that stands before the first block.
        blocks: Of each of the L blocks, together with what stands between it and the block before, such as a downsampling.
        rest: What follows, such as a last normalisation; everything if there are no blocks.
        modules: The L blocks themselves, and those of other networks in the rest: what is sharded or computed again.
    """

    name: str
    embeddings: list[nn.Parameter]
    blocks: list[list[nn.Parameter]]
    rest: list[nn.Parameter]
    modules: list[nn.Module]

    @classmethod
    def around(cls, network: nn.Module, modules: Iterable[nn.Module]) -> Layers:
        """The layers of a network that registers its parameters in the order of their use.

        Args:
            network: The network.
            modules: Its blocks in their order, none inside of another.
        """
        modules = list(modules)
        number = {p: k for k, block in reversed(list(enumerate(modules))) for p in block.parameters()}
        embeddings: list[nn.Parameter] = []
        blocks: list[list[nn.Parameter]] = [[] for _ in modules]
        waiting: list[nn.Parameter] = []
        passed = False
        for p in network.parameters():
            if p not in number:
                waiting.append(p)
                continue
            (blocks[number[p]] if passed else embeddings).extend(waiting)
            blocks[number[p]].append(p)
            waiting, passed = [], True
        name = type(network).__name__
        return cls(name=name, embeddings=embeddings, blocks=blocks, rest=waiting, modules=modules)

    def lr_scales(self, layer_decay: float) -> Mapping[nn.Parameter, float]:
        r"""Factor of the learning rate of each parameter, :math:`d^{L+1-l}`.

        The depth l is 0 for embeddings, k for the k-th of L blocks and L + 1 for what follows, which a head shares: its
        factor is 1, that of the embeddings :math:`d^{L+1}`.

        Raises:
            ValueError: If rates were to differ, but there are no blocks.

        References:
            Clark et al., ELECTRA (2020), table 6. arXiv:2003.10555
            Bao et al., BEiT (2021), appendix C, whose count of depths this is. arXiv:2106.08254
        """
        if layer_decay != 1 and not self.blocks:
            raise ValueError(
                f"Cannot use method.layer_decay={layer_decay}: {self.name} has no repeated blocks. Set "
                "method.layer_decay=1, or give the encoder a method layer_groups() that names its blocks."
            )
        groups = [self.embeddings, *self.blocks, self.rest]
        return {p: layer_decay ** (len(groups) - 1 - depth) for depth, group in enumerate(groups) for p in group}

    def freeze(self, what: str | int) -> None:
        """Keep parameters as they are: ``none``, ``embeddings``, the whole ``encoder``, or so many first blocks.

        The first blocks are frozen together with the embeddings. Dropout inside frozen blocks stays.

        Raises:
            ValueError: If there is no such part.
        """
        names = ("none", "embeddings", "encoder") if self.blocks else ("none", "encoder")
        if isinstance(what, str) and what.isdigit():
            what = int(what)
        if isinstance(what, bool) or (
            what not in names if isinstance(what, str) else not 1 <= what <= len(self.blocks)
        ):
            numbers = f", or the number of first blocks, 1 to {len(self.blocks)}" if self.blocks else ""
            raise ValueError(
                f"Cannot use method.freeze={what}: {self.name} has {len(self.blocks)} blocks. Choose from "
                f"{', '.join(names)}{numbers}."
            )
        if what == "none":
            return
        num_blocks = {"embeddings": 0, "encoder": len(self.blocks)}[what] if isinstance(what, str) else what
        frozen = [self.embeddings, *self.blocks[:num_blocks], *([self.rest] if what == "encoder" else [])]
        for group in frozen:
            for p in group:
                p.requires_grad_(False)

    def recompute_activations(self) -> None:
        """Make each block forget its activations and compute them again in the backward pass, dropout included.

        A block then keeps nothing but its input: memory for the price of a second forward pass. Weights, their names,
        losses and gradients stay the same.

        Raises:
            ValueError: If there are no blocks, or batch statistics in them, which would be counted twice.

        References:
            Chen et al., Training Deep Nets with Sublinear Memory Cost (2016). arXiv:1604.06174
        """
        inside = (layer for block in self.modules for layer in block.modules())
        statistics = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in inside)
        if not self.modules or statistics:
            reason = (
                "its batch normalisation would count each batch twice" if statistics else "it has no repeated blocks"
            )
            raise ValueError(
                f"Cannot recompute activations of a {self.name}: {reason}. Set "
                "activation_checkpointing=false, or choose a transformer or a ViT of two blocks or more as encoder=."
            )
        for block in self.modules:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """Transformer blocks, residual blocks and the like inside of a module, in its order.

    These are modules of several layers with parameters of which a ``ModuleList`` or ``Sequential`` holds two of one class
    or more; of nested ones the innermost.
    """
    candidates: dict[nn.Module, None] = {}
    for container in module.modules():
        if isinstance(container, nn.ModuleList | nn.Sequential):
            counts = Counter(type(child) for child in container)
            candidates |= {c: None for c in container if counts[type(c)] > 1 and _num_layers(c) > 1}
    return [
        candidate
        for candidate in candidates
        if not any(inner in candidates for inner in candidate.modules() if inner is not candidate)
    ]


def _num_layers(module: nn.Module) -> int:
    return sum(1 for layer in module.modules() if layer._parameters)
