"""Which parameters of a text encoder are its embeddings, its blocks and what follows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ssl_lab.encoders.text_transformer import TextTransformer


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The parameters of an encoder from its input to its output.

    Attributes:
        embeddings: All that stands before the first block.
        blocks: Of each of the L transformer blocks.
        rest: What follows, such as a last normalisation.
    """

    embeddings: list[nn.Parameter]
    blocks: list[list[nn.Parameter]]
    rest: list[nn.Parameter]

    def lr_scales(self, layer_decay: float) -> Mapping[nn.Parameter, float]:
        r"""Factor of the learning rate of each parameter, :math:`d^{L+1-l}`.

        The depth l is 0 for embeddings, k for the k-th of L blocks and L + 1 for what follows, which a head shares: its
        factor is 1, that of the embeddings :math:`d^{L+1}`.

        References:
            Clark et al., ELECTRA (2020), table 6. arXiv:2003.10555
            Bao et al., BEiT (2021), appendix C, whose count of depths this is. arXiv:2106.08254
        """
        groups = [self.embeddings, *self.blocks, self.rest]
        return {p: layer_decay ** (len(groups) - 1 - depth) for depth, group in enumerate(groups) for p in group}

    def freeze(self, what: str | int) -> None:
        """Keep parameters as they are: ``none``, ``embeddings``, the whole ``encoder``, or so many first blocks.

        The first blocks are frozen together with the embeddings. Dropout inside frozen blocks stays.

        Raises:
            ValueError: If there is no such part.
        """
        names = ("none", "embeddings", "encoder")
        if isinstance(what, str) and what.isdigit():
            what = int(what)
        if isinstance(what, bool) or (
            what not in names if isinstance(what, str) else not 1 <= what <= len(self.blocks)
        ):
            raise ValueError(
                f"Cannot use method.freeze={what}: this encoder has {len(self.blocks)} blocks. Choose from "
                f"{', '.join(names)}, or the number of first blocks, 1 to {len(self.blocks)}."
            )
        if what == "none":
            return
        num_blocks = {"embeddings": 0, "encoder": len(self.blocks)}[what] if isinstance(what, str) else what
        frozen = [self.embeddings, *self.blocks[:num_blocks], *([self.rest] if what == "encoder" else [])]
        for group in frozen:
            for p in group:
                p.requires_grad_(False)


def layers_of(encoder: TextTransformer) -> Layers:
    """The layers of an encoder, told apart by the place of its list of blocks among its modules."""
    transformer = encoder.transformer
    num_blocks = transformer.config.num_hidden_layers
    lists = [m for m in transformer.modules() if isinstance(m, nn.ModuleList) and len(m) == num_blocks]
    assert lists, f"{type(transformer).__name__} keeps its {num_blocks} blocks in no list"
    blocks = [list(block.parameters()) for block in lists[0]]
    inside = {p for block in blocks for p in block}
    embeddings: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    passed = False
    for p in encoder.parameters():
        passed = passed or p in inside
        if p not in inside:
            (rest if passed else embeddings).append(p)
    return Layers(embeddings=embeddings, blocks=blocks, rest=rest)
