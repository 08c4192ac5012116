"""Load foreign weights into an encoder: match names, report loaded and missing tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from ssl_lab.limited import printable
from ssl_lab.types import Encoder

_FIRST = ("teacher", "ema")
_LAST = ("student", "momentum", "encoder_k", "target")
"""Words in the names of two networks that one file holds: which of them is the published one."""
_FEW = 3
_SIDE_BY_SIDE = 8


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Outcome of loading the weights of a file.

    Attributes:
        source: What messages call the file.
        prefix: What the names of the file begin with before those of the encoder, such as ``teacher.backbone.``.
        loaded: Tensors of the encoder that the file gave.
        new: Tensors of the encoder that the file lacks.
        other_shapes: Tensors of both whose shapes differ: that of the encoder, and that in the file.
        unused: Tensors that the file has beside them.
        notes: What was changed on the way, such as interpolated positions.
    """

    source: str
    prefix: str
    loaded: Sequence[str]
    new: Sequence[str]
    other_shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    unused: Sequence[str]
    notes: Sequence[str]

    @property
    def line(self) -> str:
        """All of it in one line with a few names."""
        total = len(self.loaded) + len(self.new) + len(self.other_shapes)
        below = f" (below {self.prefix.removesuffix('.')})" if self.prefix else ""
        parts = [f"{len(self.loaded)} of {total} tensors of the encoder from {self.source}{below}"]
        if self.other_shapes:
            parts.append(f"{len(self.other_shapes)} of another shape stay new: {_few(self._shapes())}")
        if self.new:
            parts.append(f"{len(self.new)} missing there stay new: {_few(self.new)}")
        if self.unused:
            parts.append(f"{len(self.unused)} there unused: {_few(self.unused)}")
        return printable("; ".join([*parts, *self.notes]))

    @property
    def whole(self) -> str:
        """Every name, a line each."""
        lines = [
            *(f"loaded {name}" for name in self.loaded),
            *(f"new, for its shape: {words}" for words in self._shapes()),
            *(f"new, as it is missing: {name}" for name in self.new),
            *(f"unused: {name}" for name in self.unused),
        ]
        return printable("\n".join([f"Weights from {self.source}:", *lines]))

    def _shapes(self) -> list[str]:
        return [f"{name} {list(own)}, there {list(there)}" for name, (own, there) in self.other_shapes.items()]


@torch.no_grad()
def fit(encoder: Encoder, tensors: Mapping[str, Tensor], source: str) -> Fitted:
    """Copy tensors into an encoder wherever name and shape agree, whatever stands before the names.

    Of several networks in a file, the one whose names agree most is taken; of equals a teacher or an average before a
    student, and else the first.

    Args:
        encoder: Its weights are replaced.
        tensors: By their names in the file.
        source: What messages call the file.

    Raises:
        ValueError: If less than half of the encoder's tensors are found, or one that is found is not finite.
    """
    own = encoder.state_dict()
    prefix, inside = _prefixes(list(tensors), list(own))
    below = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    converted, notes = encoder.converted(below)
    found = {inside + name: tensor for name, tensor in converted.items()}
    counts = {name for name, tensor in own.items() if not tensor.is_floating_point()}
    loaded = [name for name in own if name in found and found[name].shape == own[name].shape]
    other_shapes = {
        name: (tuple(own[name].shape), tuple(found[name].shape)) for name in own if name in found and name not in loaded
    }
    new = [name for name in own if name not in found and name not in counts]
    if 2 * len(set(loaded) - counts) < len(set(own) - counts):
        raise ValueError(_refusal(encoder, tensors, source, len(set(loaded) - counts), other_shapes))
    if bad := next((name for name in loaded if not found[name].isfinite().all()), None):
        raise ValueError(f"Cannot start from {source}: {bad} in it is not finite. Give another file.")
    for name in loaded:
        own[name].copy_(found[name])
    used = {*loaded, *other_shapes}
    unused = [name for name in tensors if not name.startswith(prefix)]
    unused += [prefix + name.removeprefix(inside) for name in found if name not in used]
    return Fitted(
        source=source, prefix=prefix, loaded=loaded, new=new, other_shapes=other_shapes, unused=unused, notes=notes
    )


def _prefixes(names: Sequence[str], own: Sequence[str]) -> tuple[str, str]:
    """Return the prefix to remove from a file's names and the one to add, so that most match the encoder's names."""
    inside: dict[str, set[str]] = {"": set(own)}
    firsts = Counter(name.partition(".")[0] + "." for name in own if "." in name)
    for first, count in firsts.items():
        if 2 * count > len(own):
            inside[first] = {name.removeprefix(first) for name in own if name.startswith(first)}
    votes: Counter[tuple[str, str]] = Counter()
    for name in names:
        parts = name.split(".")
        for k in range(len(parts)):
            rest = ".".join(parts[k:])
            for first, known in inside.items():
                if rest in known:
                    votes[name.removesuffix(rest), first] += 1
    if not votes:
        return "", ""
    order = {key: place for place, key in enumerate(votes)}
    return max(votes, key=lambda key: (votes[key], _rank(key[0]), -order[key]))


def _rank(prefix: str) -> int:
    return any(word in prefix for word in _FIRST) - any(word in prefix for word in _LAST)


def _refusal(
    encoder: Encoder,
    tensors: Mapping[str, Tensor],
    source: str,
    num_found: int,
    other_shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
) -> str:
    own = encoder.state_dict()
    ours = [f"{name} {list(own[name].shape)}" for name in own]
    theirs = [f"{name} {list(tensor.shape)}" for name, tensor in tensors.items()]
    width = max(len(name) for name in ours[:_SIDE_BY_SIDE])
    rows = zip_longest(ours[:_SIDE_BY_SIDE], theirs[:_SIDE_BY_SIDE], fillvalue="")
    table = "\n".join(f"  {left:{width}}  {right}".rstrip() for left, right in rows)
    shapes = f", and {len(other_shapes)} there have other shapes" if other_shapes else ""
    return printable(
        f"Cannot start {encoder.title} from {source}: it gives {num_found} of the encoder's {len(own)} tensors{shapes}. "
        f"Choose the encoder= that the file was made from, or another file.\n"
        f"  {'the encoder':{width}}  the file ({len(theirs)} tensors)\n{table}"
    )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more
