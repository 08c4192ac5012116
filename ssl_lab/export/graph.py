"""Writing features as one graph that needs none of our code: ONNX, or a program of torch.export."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize
from torch.onnx.errors import OnnxExporterError

from ssl_lab.export.transformers import check_features, is_whole
from ssl_lab.methods.base import Method
from ssl_lab.types import Batch, Spec

FILES = {"onnx": "model.onnx", "torch_export": "model.pt2"}
_ONE_FILE_BYTES = 1_900_000_000  # of weights inside model.onnx; a protocol buffer ends at 2 GiB


class Features(nn.Module):
    """Features of a run, as they were measured, as a function of tensors alone.

    They are the columns of the data's spec: of images float32 (B, C, H, W) in [0, 1], which are normalised inside, of texts
    ``input_ids`` and ``attention_mask``, int64 (B, L).
    """

    def __init__(self, module: nn.Module, represent: Callable[[Batch], Tensor], names: tuple[str, ...]) -> None:
        super().__init__()
        self.module = module
        self.represent = represent
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Features (B, D)."""
        return self.represent(dict(zip(self.names, inputs, strict=True)))


def features_of(method: Method) -> Features:
    """The features that protocols judged, in eval mode on the CPU, and no weights that they do not need."""
    method = method.cpu().eval()
    encoder = method.feature_encoder
    names = tuple(encoder.tower.spec.example(1))
    for layer in method.modules():
        if parametrize.is_parametrized(layer):  # spectral normalisation: the weight itself is enough
            for name in list(layer.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(layer, name)
    method.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # which torch.export saves whole
    if not is_whole(method):
        return Features(method, method.represent, names)
    return Features(encoder.tower, encoder.embed, names)


def export_program(features: Features, spec: Spec) -> ExportedProgram:
    """The graph for any number of samples, and of the sizes that the data's spec says may vary.

    Raises:
        ValueError: If the network cannot be written as one graph.
    """
    inputs = tuple(spec.example(3)[name] for name in features.names)
    sizes: dict[int, Any] = {0: Dim("batch", min=1)}
    for axis, (name, smallest, largest) in spec.exported_sizes().items():
        sizes[axis] = Dim(name, min=smallest, max=largest)
    shapes = (tuple(sizes for _ in inputs),)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, about itself
            program = torch.export.export(features, inputs, dynamic_shapes=shapes, strict=False)
            if _drop_unused(features, program):
                program = torch.export.export(features, inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # whatever the tracer meets in a network
        raise ValueError(
            f"The {type(features.module).__name__} could not be written as one graph ({_reason(error)}). Write it as "
            "format=timm or format=hf where these know the architecture, or its features with ssl-lab embed."
        ) from error
    return program


def _drop_unused(features: Features, program: ExportedProgram) -> bool:
    """Empty the weights that no feature depends on, such as a decoder's, in the module; whether there were any."""
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    unused = [
        str(facts.target)
        for facts, node in zip(program.graph_signature.input_specs, nodes, strict=True)
        if facts.target in program.state_dict and not node.users
    ]
    for target in unused:
        place, _, name = target.rpartition(".")
        owner, nothing = features.get_submodule(place), torch.empty(0)
        setattr(owner, name, nn.Parameter(nothing) if name in owner._parameters else nothing)
    return bool(unused)


def _reason(error: Exception) -> str:
    lines = str(error).split("Exception summary")[-1].splitlines()
    messages = [line.strip() for line in lines if line.strip() and not line.startswith("<class")]
    return messages[0][:200] if messages else type(error).__name__


def write_graph(
    program: ExportedProgram,
    features: Features,
    spec: Spec,
    folder: Path,
    *,
    kind: str,
    output: str = "features",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write ``model.onnx`` or ``model.pt2`` and compare its outputs with the run's features or scores.

    Args:
        program: The graph.
        features: What it is compared with.
        spec: What it reads.
        folder: A folder that exists.
        kind: ``onnx`` or ``torch_export``.
        output: Name of what it gives.
        metadata: Texts by name that ``model.onnx`` carries, such as the classes.

    Raises:
        ValueError: If what was written computes something else.
    """
    path = folder / FILES[kind]
    if kind == "onnx":
        _write_onnx(program, features.names, path, output=output, metadata=metadata or {})
        check_features(lambda: _load_onnx(path), features.represent, spec)
    else:
        torch.export.save(program, path)
        check_features(lambda: _load_program(path), features.represent, spec)


def _write_onnx(
    program: ExportedProgram, names: tuple[str, ...], path: Path, *, output: str, metadata: Mapping[str, str]
) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    # The fused kernels' layouts are not those that the graph was traced with; ONNX has none of these kernels anyway.
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the translator, about itself
        try:
            onnx_program = torch.onnx.export(
                program, input_names=list(names), output_names=[output], dynamo=True, verbose=False
            )
        except OnnxExporterError as error:
            raise ValueError(
                f"The graph could not be written in the operators of ONNX ({_reason(error)}). Choose format=torch_export."
            ) from error
    assert onnx_program is not None
    onnx_program.model.metadata_props.update(metadata)
    onnx_program.save(path, external_data=size > _ONE_FILE_BYTES)


def _load_onnx(path: Path) -> Callable[[Batch], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(batch: Batch) -> Tensor:
        (features,) = session.run(None, {name: batch[name].numpy() for name in names})
        return torch.from_numpy(features)

    return run


def _load_program(path: Path) -> Callable[[Batch], Tensor]:
    module = torch.export.load(path).module()
    return lambda batch: module(*batch.values())
