"""Each modality: what its data is, how it looks without learning, and that a run keeps and reads it."""

import importlib
import inspect
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from arrays import ArrayCaptions, ArrayImages, ArrayText
from omegaconf import OmegaConf

import ssl_lab.modalities
from ssl_lab.cli.trust.spec import read_spec, restored
from ssl_lab.export import snippets
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.text import TextSpec, WrittenText
from ssl_lab.runs.directory import write_spec
from ssl_lab.runs.moved import spec_of_today
from ssl_lab.types import Classes, Spec


def test_images_are_their_pixels():
    datamodule = ArrayImages(shape=(3, 4, 5))
    image = datamodule.columns("test")["image"]
    features = datamodule.spec.raw({"image": image})
    torch.testing.assert_close(features, torch.stack([x.flatten() / 255 for x in image]))
    torch.testing.assert_close(datamodule.spec.raw({"image": image / 255}), features)


def test_text_is_the_words_that_occur():
    datamodule = ArrayText()
    batch = datamodule.as_batch(datamodule.columns("test"))
    batch["input_ids"][:, 0] = 2  # a special
    batch["input_ids"][:, 1] = batch["input_ids"][:, 2]  # a word twice
    features = datamodule.spec.raw(batch)
    assert features.shape == (64, 40)
    for row, ids, mask in zip(features, batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True):
        counts = Counter(i for i, m in zip(ids, mask, strict=True) if m and i not in datamodule.spec.special_ids)
        length = sum(count**2 for count in counts.values()) ** 0.5
        torch.testing.assert_close(row, torch.tensor([counts[i] / length for i in range(40)]))


def test_a_text_without_words_is_zero():
    datamodule = ArrayText()
    ids = torch.zeros(2, 12, dtype=torch.int64)
    features = datamodule.spec.raw({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert features.abs().max() == 0


def modalities():
    """Each Spec of a file in ``modalities/``."""
    for path in sorted(Path(ssl_lab.modalities.__file__).parent.glob("[a-z]*.py")):
        module = importlib.import_module(f"ssl_lab.modalities.{path.stem}")
        found = [kind for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, Spec)]
        yield next(kind for kind in found if kind.__module__ == module.__name__)


EXAMPLES = {
    "image": ImageSpec(shape=(3, 8, 8), mean=(0.5,) * 3, std=(0.2,) * 3, targets={"label": Classes(names=("a", "b"))}),
    "text": replace(ArrayText().spec, continues_word=(7, 9, 10)),
    "image_text": ArrayCaptions().spec,
}


@pytest.mark.parametrize("kind", modalities(), ids=lambda kind: kind.__name__)
def test_each_modality_keeps_the_contract_of_specs(kind, tmp_path):
    spec = EXAMPLES[kind.modality]
    assert isinstance(spec, kind) and type(spec) is kind
    assert all(isinstance(getattr(kind, name), str) for name in ("modality", "kind", "raw_name"))
    write_spec(tmp_path, spec)
    assert read_spec(tmp_path, OmegaConf.create()) == spec and hash(spec) == hash(replace(spec))
    batch = spec.example(3)
    assert set(batch) <= set(spec.columns) and all(len(column) == 3 for column in batch.values())
    assert all(torch.equal(column, spec.example(3)[name]) for name, column in batch.items())
    assert batch[spec.columns[0]].shape[1:] == spec.shape and spec.num_elements(batch) > 0
    assert spec.raw(batch).shape[0] == 3 and spec.raw(batch).isfinite().all()
    assert set(spec.exported_inputs()["inputs"]) == set(batch)
    assert spec.accepts(spec) and spec.kind in str(spec)
    other = EXAMPLES["text" if kind.modality != "text" else "image"]
    assert not spec.accepts(other) and not spec.accepts(WaveSpec())
    with pytest.raises(
        ValueError, match=f"Somebody takes {kind.kind}, but the data is {other.kind} of .* of one modality"
    ):
        kind.of(other, "Somebody")


def test_images_are_accepted_by_channels_and_with_captions_as_images():
    images, pairs = EXAMPLES["image"], EXAMPLES["image_text"]
    assert images.accepts(replace(images, shape=(3, 32, 16))) and not images.accepts(replace(images, shape=(1, 8, 8)))
    assert pairs.accepts(pairs.image) and not pairs.image.accepts(pairs)


def test_the_pixels_of_large_images_are_means_of_areas():
    spec = ImageSpec(shape=(3, 224, 112))
    image = torch.rand(2, 3, 224, 112)
    raw = spec.raw({"image": image})
    assert 3000 < raw.shape[1] <= 4096
    torch.testing.assert_close(raw.mean(1), image.mean((1, 2, 3)), atol=1e-2, rtol=0)
    assert ImageSpec(shape=(1, 64, 64)).raw({"image": torch.rand(2, 1, 64, 64)}).shape == (2, 4096)


@pytest.mark.parametrize(
    "facts",
    [{"names": (), "number": 0}, {"names": ("a",), "number": 2}, {"names": (), "number": -1}],
)
def test_classes_are_all_named_or_none(facts):
    with pytest.raises(ValueError, match="Give every class a name, or none"):
        Classes(**facts)


def test_a_number_of_classes_that_would_fill_the_memory_is_refused():
    with pytest.raises(ValueError, match="Give at most 10,000,000"):
        Classes(number=10**13)


def test_facts_of_former_runs_become_those_of_today():
    """Fields of all modalities stood in one class."""
    former = {"modality": "image_text", "shape": [3, 8, 8], "text_length": 6, "num_classes": 2, "class_names": ["a", "b"],
              "mean": [0.5] * 3, "std": [0.2] * 3, "vocab_size": 40, "pad_id": 0, "mask_id": 4, "eos_id": None,
              "special_ids": [0, 4], "continues_word": "7 9-10", "target_length": None, "target_ids": []}  # fmt: skip
    image = ImageSpec(shape=(3, 8, 8), mean=(0.5,) * 3, std=(0.2,) * 3)
    text = TextSpec(length=6, vocab_size=40, pad_id=0, mask_id=4, special_ids=(0, 4), continues_word=(7, 9, 10))
    found = restored(spec_of_today(former))
    assert (found.image, found.text, found.class_names) == (image, text, ("a", "b"))
    written = {"target_length": 9, "target_vocab_size": 50, "target_ids": [0, 1, 2]}
    found = restored(spec_of_today({**former, **written, "modality": "text", "shape": [6], "text_length": None}))
    assert replace(found, targets={}) == text
    assert found.targets["target_input_ids"] == WrittenText(length=9, vocab_size=50, pad_id=0, begin_id=1, end_id=2)


@dataclass(frozen=True, kw_only=True)
class WaveSpec(Spec):
    """A modality of one's own."""

    modality = "waveform"
    kind = "waveforms"
    columns = ("waveform",)
    raw_name = "raw samples"
    shape: tuple[int, ...] = (64,)

    def raw(self, batch):
        return batch["waveform"]

    def example(self, num_samples):
        return {"waveform": torch.rand(num_samples, *self.shape)}


def test_facts_of_an_own_modality_are_read_where_its_module_is_trusted(tmp_path):
    write_spec(tmp_path, WaveSpec(shape=(8,)))
    with pytest.raises(ValueError, match=r"spec.json: _target_ names .*WaveSpec, which is not a class"):
        read_spec(tmp_path, OmegaConf.create())
    settings = OmegaConf.create({"data": {"_target_": f"{__name__}.Tones"}})
    assert read_spec(tmp_path, settings) == WaveSpec(shape=(8,))


def test_the_card_of_an_own_modality_shows_its_inputs():
    assert '"waveform": np.zeros((2, 64), dtype="float32")' in snippets.for_onnx(WaveSpec())
    assert "torch.zeros((2, 64), dtype=torch.float32)" in snippets.for_torch_export(WaveSpec())
