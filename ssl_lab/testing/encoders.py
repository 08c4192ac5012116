"""Contract of every encoder."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import torch

from ssl_lab.types import Batch, Encoder, NotOfferedError


def check_encoder(build: Callable[[], Encoder]) -> None:
    """Check the contract of every encoder on the ``example`` of its own spec.

    Features are (B, ``embed_dim``) and finite (:func:`check_embed`), feature maps have their strides (:func:`check_maps`),
    ``layer_groups`` holds every parameter once (:func:`check_layers`), and a copy and a stored state give the same features
    (:func:`check_stored`).

    Args:
        build: Makes the encoder anew, such as ``lambda: ConvNet(data.spec, widths=(8, 16))``.

    Raises:
        AssertionError: Saying what does not hold.
    """
    for check in (check_embed, check_maps, check_layers, check_stored):
        check(build)


def check_embed(build: Callable[[], Encoder]) -> None:
    """Features have a gradient in training; in evaluation they are repeatable and independent of the batch.

    Raises:
        AssertionError: Saying what does not hold.
    """
    encoder = _built(build)
    name = type(encoder).__name__
    assert encoder.spec.accepts(encoder.spec), f"{name} does not read the data it was built for: see spec.accepts."
    batch = encoder.spec.example(5)
    before = {column: values.clone() for column, values in batch.items()}
    features = encoder.train().embed(batch)
    assert all(module.training for module in encoder.modules()), f"embed of {name} changes the mode of its modules."
    found = tuple(features.shape)
    assert found == (5, encoder.embed_dim), (
        f"Features of 5 samples by {name} should be (5, embed_dim) = (5, {encoder.embed_dim}), found {found}."
    )
    assert features.is_floating_point(), f"Features of {name} are {features.dtype}, and not floating-point numbers."
    assert torch.isfinite(features).all(), f"{name} has features that are not finite."
    features.float().square().sum().backward()
    reached = [p for p in encoder.parameters() if p.grad is not None]
    assert reached, f"No parameter of {name} gets a gradient from its features."
    assert all(torch.equal(batch[column], before[column]) for column in before), f"{name} changes the batch it reads."

    encoder.eval()
    with torch.no_grad():
        features = encoder.embed(batch)
        assert torch.equal(features, encoder.embed(batch)), f"Features of {name} differ from one call to the next."
        few = encoder.embed({column: values[:2] for column, values in batch.items()})
    assert torch.allclose(features[:2], few, rtol=1e-4, atol=1e-5), (
        f"Features of {name} depend on the rest of the batch."
    )


def check_maps(build: Callable[[], Encoder]) -> None:
    """Feature maps, if there are any, go from fine to coarse, and each is the input's size divided by its stride.

    Raises:
        AssertionError: Saying what does not hold.
    """
    encoder = _built(build).eval()
    name = type(encoder).__name__
    batch = encoder.spec.example(2)
    try:
        with torch.no_grad():
            maps = encoder.maps(batch)
    except NotOfferedError:
        return
    strides = [found.stride for found in maps]
    assert strides and strides == sorted(strides), f"Maps of {name} should go from fine to coarse, found {strides}."
    for found in maps:
        grid = tuple(found.tensor.shape[2:])
        sides = batch[encoder.spec.columns[0]].shape[-len(grid) :]
        wanted = tuple(-(-side // found.stride) for side in sides)
        assert len(found.tensor) == 2 and grid == wanted, (
            f"The map of stride {found.stride} by {name} should be (2, D, {', '.join(map(str, wanted))}), found "
            f"{tuple(found.tensor.shape)}."
        )


def check_layers(build: Callable[[], Encoder]) -> None:
    """``layer_groups`` holds every parameter exactly once, and those of each block in its group.

    Raises:
        AssertionError: Saying what does not hold.
    """
    encoder = _built(build)
    name = type(encoder).__name__
    layers = encoder.layer_groups()
    found = [id(p) for group in (layers.embeddings, *layers.blocks, layers.rest) for p in group]
    known = {id(p): parameter for parameter, p in encoder.named_parameters()}
    missing = [known[each] for each in known if each not in found]
    assert not missing, f"layer_groups() of {name} leaves out {', '.join(missing)}."
    assert len(found) == len(set(found)), f"layer_groups() of {name} holds a parameter twice."
    assert len(found) == len(known), f"layer_groups() of {name} holds parameters that are not its own."
    assert len(layers.modules) >= len(layers.blocks), (
        f"layer_groups() of {name} has {len(layers.blocks)} blocks of parameters, but only {len(layers.modules)} modules."
    )
    for k, (block, module) in enumerate(zip(layers.blocks, layers.modules, strict=False)):
        own = {id(p) for p in module.parameters()}
        assert own <= {id(p) for p in block}, f"Block {k} of {name} lacks parameters of its module."


def check_stored(build: Callable[[], Encoder]) -> None:
    """A copy and a new encoder with the stored state have the same features; the state is plain tensors.

    Raises:
        AssertionError: Saying what does not hold.
    """
    encoder = _built(build).train()
    batch: Batch = encoder.spec.example(4)
    with torch.no_grad():
        encoder.embed(batch)  # batch statistics are part of the state
        features = encoder.eval().embed(batch)
        copied = copy.deepcopy(encoder).embed(batch)
        buffer = io.BytesIO()
        torch.save(encoder.state_dict(), buffer)
        buffer.seek(0)
        other = build().eval()
        other.load_state_dict(torch.load(buffer, weights_only=True))
        loaded = other.embed(batch)
    name = type(encoder).__name__
    assert torch.equal(features, copied), f"A copy of {name}, as teachers are, has other features."
    assert torch.equal(features, loaded), f"A new {name} with the stored state has other features."


def _built(build: Callable[[], Encoder]) -> Encoder:
    torch.manual_seed(0)
    return build()
