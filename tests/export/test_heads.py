"""Heads of fine-tuned tasks in transformers, timm and ONNX: loaded back they give the run's scores, or are refused."""

import json
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import transformers
from tasks.tiny import optim

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.encoders.timm_model import TimmModel
from ssl_lab.export.graph import export_program, write_graph
from ssl_lab.export.heads import (
    auto_class_of_head,
    check_head,
    classifier_of,
    head_in_transformers,
    scores_of,
    sizes_of,
)
from ssl_lab.export.timm import write_for_timm
from ssl_lab.export.transformers import write_for_transformers
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.text import TextSpec
from ssl_lab.tasks.classification import Classification
from ssl_lab.tasks.question_answering import QuestionAnswering
from ssl_lab.tasks.semantic_segmentation import SemanticSegmentation
from ssl_lab.tasks.similarity import Similarity
from ssl_lab.tasks.text_classification import TextClassification
from ssl_lab.tasks.token_classification import TokenClassification
from ssl_lab.types import Classes, NotOfferedError

NAMES = ("ham", "spam", "else")
TARGETS = {name: Classes(names=NAMES) for name in ("label", "token_labels", "mask")}
TEXT = TextSpec(length=24, vocab_size=90, pad_id=0, mask_id=4, eos_id=3, special_ids=(0, 1, 2, 3, 4), targets=TARGETS)
IMAGE = ImageSpec(shape=(3, 72, 72), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), targets=TARGETS)


def text_task(kind, architecture, **settings):
    torch.manual_seed(0)
    pooling = settings.pop("pooling", "mean")
    return kind(
        TextTransformer(TEXT, size="tiny", architecture=architecture, pooling=pooling), optim(), **settings
    ).eval()


@pytest.mark.parametrize(
    ("kind", "architecture", "settings"),
    [
        (TextClassification, "bert", {"head": "bert"}),
        (TextClassification, "roberta", {"head": "bert"}),
        (TextClassification, "modernbert", {}),
        (TextClassification, "modernbert", {"pooling": "first"}),
        (TokenClassification, "bert", {}),
        (TokenClassification, "roberta", {}),
        (TokenClassification, "gpt2", {}),
        (QuestionAnswering, "bert", {}),
        (QuestionAnswering, "roberta", {}),
    ],
)
def test_heads_of_texts_are_models_of_transformers(kind, architecture, settings, tmp_path):
    task = text_task(kind, architecture, **settings)
    model = head_in_transformers(task)
    write_for_transformers(model, tmp_path)
    check_head(model, task, TEXT, tmp_path)
    loaded = getattr(transformers, auto_class_of_head(model)).from_pretrained(tmp_path).eval()
    assert type(loaded) is type(model)
    batch = TEXT.example(4)
    batch["input_ids"][(batch["input_ids"] == 0) & (batch["attention_mask"] == 1)] = 7  # as in a text
    with torch.no_grad():
        found, wanted = loaded(**batch), task.scores(batch)
    found = found.logits if "logits" in found else torch.stack([found.start_logits, found.end_logits], -1)
    real = batch["attention_mask"].bool() if wanted.ndim == 3 else slice(None)
    torch.testing.assert_close(found[real], wanted[real], rtol=1e-4, atol=1e-4)
    if kind is not QuestionAnswering:
        assert loaded.config.id2label == dict(enumerate(NAMES))
    task.head[-1].bias.data += 1
    with pytest.raises(ValueError, match="they differ"):
        check_head(model, task, TEXT, tmp_path)


def test_heads_that_transformers_lacks_are_refused():
    for task, words in (
        (text_task(TextClassification, "bert"), "fine-tune with method.head=bert"),
        (text_task(TokenClassification, "modernbert"), "modernbert has another head"),
        (text_task(Similarity, "bert"), "no head of Similarity"),
    ):
        with pytest.raises(NotOfferedError, match=words):
            head_in_transformers(task)
    with pytest.raises(NotOfferedError, match="not one tensor"):
        scores_of(text_task(Similarity, "bert"))
    with pytest.raises(ValueError, match="the first token of a gpt2 has seen nothing"):
        text_task(TextClassification, "gpt2", head="bert")


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_a_classifier_of_timm_knows_its_classes(tmp_path, ema_decay):
    torch.manual_seed(0)
    encoder = TimmModel(IMAGE, name="resnet10t", options={"stem_width": 8})
    task = Classification(encoder, optim(), ema_decay=ema_decay).eval()
    if ema_decay:
        for weight in (*task.encoder.parameters(), *task.head.parameters()):
            weight.data += 1  # the average is judged
    write_for_timm(task.feature_encoder, tmp_path, classifier=classifier_of(task), spec=IMAGE)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = IMAGE.example(3)["image"]
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (IMAGE.mean, IMAGE.std))
    with torch.no_grad():
        torch.testing.assert_close(model((x - mean) / std), task.scores({"image": x}), rtol=1e-4, atol=1e-4)
    assert model.num_classes == 3 and tuple(json.loads((tmp_path / "config.json").read_text())["label_names"]) == NAMES
    with pytest.raises(NotOfferedError, match="no head of SemanticSegmentation"):
        classifier_of(SemanticSegmentation(ConvNet(IMAGE, widths=(4, 8)), optim()))


@pytest.mark.parametrize("kind", [Classification, SemanticSegmentation])
def test_a_graph_of_onnx_carries_the_names_of_its_classes(tmp_path, kind):
    torch.manual_seed(0)
    small = replace(IMAGE, shape=(3, 16, 16))
    task = kind(ConvNet(replace(small, shape=(3, 8, 8)), widths=(4, 8)), optim())
    spec = sizes_of(task.encoder.spec, small)
    assert spec.shape == small.shape and sizes_of(TEXT, replace(TEXT, length=9)).length == 9
    scores = scores_of(task)
    metadata = {"classes": json.dumps(task.score_names())}
    write_graph(export_program(scores, spec), scores, spec, tmp_path, kind="onnx", output="scores", metadata=metadata)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(NAMES)
    assert [each.name for each in session.get_outputs()] == ["scores"]
    x = small.example(2)["image"]
    with torch.no_grad():
        wanted = task.eval().scores({"image": x}).numpy()
    np.testing.assert_allclose(session.run(None, {"image": x.numpy()})[0], wanted, rtol=1e-4, atol=1e-4)
