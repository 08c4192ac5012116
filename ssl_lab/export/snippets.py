"""Code that loads an exported model, for its card: complete, and as a reader would run it in the folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.text import TextSpec
from ssl_lab.types import Spec

_MASKED = """\
text = f"The {tokenizer.mask_token} statement"
# split_special_tokens=False reads the mask as one token, which not every tokenizer does by itself.
inputs = tokenizer(text, split_special_tokens=False, return_tensors="pt")
scores = model(**inputs).logits[inputs["input_ids"] == tokenizer.mask_token_id, : len(tokenizer)]
print(tokenizer.convert_ids_to_tokens(scores.topk(5).indices[0]))
"""

_CAUSAL = """\
inputs = tokenizer("The statement", return_tensors="pt", add_special_tokens=False)
ids = model.generate(**inputs, max_new_tokens=20, do_sample=True, top_p=0.9, pad_token_id=tokenizer.pad_token_id)
print(tokenizer.decode(ids[0], skip_special_tokens=True))
"""

_SPANS = """\
ids = tokenizer("The statement", return_tensors="pt")["input_ids"]
ids[0, 1] = {sentinel}  # the first sentinel: stands for a span that the model writes
print(tokenizer.decode(model.generate(ids, max_new_tokens=10)[0], skip_special_tokens=True))
"""

_FEATURES = """\
inputs = tokenizer(["One text.", "Another, longer text."], padding=True, return_tensors="pt")
hidden = model(**inputs).last_hidden_state
{pooling}
print(features.shape)
"""

_POOLING = {
    "mean": """\
weights = inputs["attention_mask"].unsqueeze(-1)
features = (hidden * weights).sum(1) / weights.sum(1)  # the mean over real tokens, as in training""",
    "first": "features = hidden[:, 0]  # the first token's state, as in training",
    "last": """\
last = inputs["attention_mask"].sum(1) - 1
features = hidden[range(len(hidden)), last]  # the last real token's state, as in training""",
}

_IMAGES = "images = torch.rand(2, {shape})  # of your own: float32 in [0, 1], (number, channels, height, width)\n"
_NORMALISED = """\
mean, std = (torch.tensor(values).view(-1, 1, 1) for values in ({mean}, {std}))
"""
_TEXTS = """\
tokenizer = AutoTokenizer.from_pretrained(folder)
inputs = tokenizer(["One text.", "Another, longer text."], padding=True, truncation=True, return_tensors="{tensors}")
"""


def for_transformers(auto_class: str, *, pooling: str, sentinels_end: str) -> str:
    """A text model by its class of transformers.

    Args:
        auto_class: Such as ``AutoModelForMaskedLM``.
        pooling: How the run makes one vector of a text: ``mean``, ``first`` or ``last``.
        sentinels_end: An expression for one more than the first sentinel (T5).
    """
    use = {
        "AutoModelForMaskedLM": _MASKED,
        "AutoModelForCausalLM": _CAUSAL,
        "AutoModelForSeq2SeqLM": _SPANS.format(sentinel=f"{sentinels_end} - 1"),
    }.get(auto_class) or _FEATURES.format(pooling=_POOLING[pooling])
    return f"""\
from transformers import {", ".join(sorted((auto_class, "AutoTokenizer")))}

folder = "."  # where this file is, or the model's name on the hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {auto_class}.from_pretrained(folder)

{use}"""


def for_head(format: str, loader: str, spec: Spec) -> str:
    """A model with the head of a task, in whatever format."""
    name = loader.partition(".")[2]
    if format == "hf":
        texts = """\
inputs = tokenizer(["One text.", "Another, longer text."], padding=True, truncation=True, return_tensors="pt")
inputs.pop("token_type_ids", None)"""
        if name == "AutoModelForQuestionAnswering":
            texts = 'inputs = tokenizer("Who wrote it?", "It was written by Ada.", return_tensors="pt")'
        return f"""\
import torch
from transformers import {", ".join(sorted((name, "AutoTokenizer")))}

folder = "."  # where this file is, or the model's name on the hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {name}.from_pretrained(folder).eval()

{texts}
with torch.no_grad():
    print(model(**inputs))  # scores in the order of model.config.id2label
"""
    if format == "timm":
        return for_timm(spec.shape).replace("features", "scores") + 'print(model.pretrained_cfg["label_names"])\n'
    graph = for_onnx(spec) if format == "onnx" else for_torch_export(spec)
    return graph.replace("features", "scores")


def for_vit(spec: ImageSpec, *, pooling: str) -> str:
    """A ViT of transformers."""
    pooled = (
        "hidden[:, 1:].mean(1)  # of the patches' tokens" if pooling == "mean" else "hidden[:, 0]  # the class token"
    )
    normalised = _NORMALISED.format(mean=list(spec.mean), std=list(spec.std))
    return f"""\
import torch
from transformers import ViTModel

folder = "."  # where this file is, or the model's name on the hub
model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()

{_images(spec.shape)}{normalised}hidden = model((images - mean) / std).last_hidden_state
features = {pooled}, as in training
print(features.shape)
"""


def for_timm(shape: tuple[int, ...]) -> str:
    """A model of timm."""
    return f"""\
import timm
import torch

folder = "local-dir:."  # where this file is, or "hf-hub:USER/NAME"
model = timm.create_model(folder, pretrained=True).eval()

{_images(shape)}config = timm.data.resolve_model_data_config(model)
mean, std = (torch.tensor(config[name]).view(-1, 1, 1) for name in ("mean", "std"))
features = model((images - mean) / std)
print(features.shape)
"""


@singledispatch
def for_onnx(spec: Spec) -> str:
    """A graph of ONNX."""
    arrays = ", ".join(
        f'"{name}": np.zeros({_two(facts["shape"])}, dtype="{facts["type"]}")'
        for name, facts in spec.exported_inputs()["inputs"].items()
    )
    return f"""\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")  # in the folder where this file is
inputs = {{{arrays}}}  # your own {spec.kind}
(features,) = session.run(None, inputs)
print(features.shape)
"""


@for_onnx.register
def _(spec: TextSpec) -> str:
    return f"""\
import onnxruntime
from transformers import AutoTokenizer

folder = "."  # where this file is
session = onnxruntime.InferenceSession(f"{{folder}}/model.onnx")

{_TEXTS.format(tensors="np")}names = ("input_ids", "attention_mask")
(features,) = session.run(None, {{name: inputs[name].astype("int64") for name in names}})
print(features.shape)
"""


@for_onnx.register
def _(spec: ImageSpec) -> str:
    return f"""\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")  # in the folder where this file is
images = np.random.rand(2, {", ".join(map(str, spec.shape))}).astype("float32")  # your own, in [0, 1]; normalised inside
(features,) = session.run(None, {{"image": images}})
print(features.shape)
"""


@singledispatch
def for_torch_export(spec: Spec) -> str:
    """A program of torch.export."""
    tensors = ", ".join(
        f"torch.zeros({_two(facts['shape'])}, dtype=torch.{facts['type']})"
        for facts in spec.exported_inputs()["inputs"].values()
    )
    return f"""\
import torch

model = torch.export.load("model.pt2").module()  # in the folder where this file is
features = model({tensors})  # your own {spec.kind}
print(features.shape)
"""


@for_torch_export.register
def _(spec: TextSpec) -> str:
    return f"""\
import torch
from transformers import AutoTokenizer

folder = "."  # where this file is
model = torch.export.load(f"{{folder}}/model.pt2").module()

{_TEXTS.format(tensors="pt")}features = model(inputs["input_ids"], inputs["attention_mask"])
print(features.shape)
"""


@for_torch_export.register
def _(spec: ImageSpec) -> str:
    return f"""\
import torch

model = torch.export.load("model.pt2").module()  # in the folder where this file is
{_images(spec.shape)}features = model(images)  # normalised inside
print(features.shape)
"""


def _two(shape: Sequence[int | str]) -> tuple[int | str, ...]:
    """The shape of a batch of two; what may vary becomes 2 as well."""
    return tuple(2 if isinstance(size, str) else size for size in shape)


def _images(shape: tuple[int, ...]) -> str:
    return _IMAGES.format(shape=", ".join(map(str, shape)))
