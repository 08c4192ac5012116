"""Tiny data modules from tensors, for tests."""

import torch

from ssl_lab.data.base import DataModule, NoSuchSplitError
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.methods.vq_vae import VQVAE
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.pair import PairSpec
from ssl_lab.modalities.text import TextSpec
from ssl_lab.optim import SGD
from ssl_lab.types import Classes


class ArrayImages(DataModule):
    """Images of two classes: a bright upper or lower half, with noise."""

    def __init__(self, *, shape=(1, 8, 8), num_samples=64, labels=True, **settings):
        super().__init__(**{"batch_size": 16, **settings})
        self.shape, self.num_samples, self.labels = shape, num_samples, labels

    @property
    def spec(self):
        channels = self.shape[0]
        return ImageSpec(
            shape=self.shape,
            targets={"label": Classes(names=("up", "down"))},
            mean=(0.5,) * channels,
            std=(0.3,) * channels,
        )

    def columns(self, split):
        seed = {"pretrain": 0, "train": 0, "val": 1, "test": 2}[split]
        generator = torch.Generator().manual_seed(seed)
        label = torch.arange(self.num_samples) % 2
        image = torch.randint(0, 100, (self.num_samples, *self.shape), dtype=torch.uint8, generator=generator)
        half = self.shape[1] // 2
        image[label == 0, :, :half] += 120
        image[label == 1, :, half:] += 120
        return {"image": image, "label": label} if self.labels else {"image": image}


class LackingImages(ArrayImages):
    """The same without some splits."""

    def __init__(self, *lacking, **settings):
        super().__init__(**settings)
        self.lacking = lacking

    def columns(self, split):
        if split in self.lacking:
            raise NoSuchSplitError(f"no {split}")
        return super().columns(split)


class ArrayText(DataModule):
    """Sentences in which every token says what the next one is."""

    def __init__(self, *, length=12, num_samples=64, **settings):
        super().__init__(**{"batch_size": 16, **settings})
        self.length, self.num_samples = length, num_samples

    @property
    def spec(self):
        return TextSpec(
            length=self.length,
            targets={"label": Classes(number=2)},
            vocab_size=40,
            pad_id=0,
            mask_id=4,
            special_ids=(0, 1, 2, 3, 4),
        )

    def columns(self, split):
        start = torch.arange(self.num_samples).unsqueeze(1) + {"val": 3, "test": 7}.get(split, 0)
        ids = 5 + (start + torch.arange(self.length)) % 35
        ids[::3, self.length // 2 :] = 0
        return {"input_ids": ids, "label": torch.arange(self.num_samples) % 2}

    def as_batch(self, rows):
        return {**rows, "attention_mask": (rows["input_ids"] != 0).long()}


class ArrayTextPairs(ArrayText):
    """Sentences of ArrayText with a partner that goes on two tokens later, one that runs backwards, and a score."""

    def columns(self, split):
        columns = super().columns(split)
        ids = columns["input_ids"]
        later = torch.where(ids > 0, 5 + (ids - 3) % 35, 0)
        score = torch.rand(self.num_samples, generator=torch.Generator().manual_seed(0))
        return {**columns, "second_input_ids": later, "negative_input_ids": ids.flip(1), "score": score}

    def as_batch(self, rows):
        masks = {n.replace("input_ids", "attention_mask"): (i != 0).long() for n, i in rows.items() if "input_ids" in n}
        return {**rows, **masks}


class ArrayCaptions(ArrayImages):
    """Images of ArrayImages with two captions each, a word for the class and a word for the number of the image."""

    @property
    def spec(self):
        image, text = super().spec, TextSpec(length=6, vocab_size=40, pad_id=0, mask_id=4, special_ids=(0, 1, 2, 3, 4))
        return PairSpec(image=image, text=text, targets=image.targets)

    def columns(self, split):
        columns = super().columns(split)
        captions = torch.zeros(self.num_samples, 2, 6, dtype=torch.int64)
        captions[:, :, 0] = 2
        captions[:, :, 1] = 5 + columns["label"].unsqueeze(1)
        captions[:, :, 2] = 7 + torch.arange(self.num_samples).unsqueeze(1) % 30
        captions[:, 1, 3] = 3
        captions[::3, 1] = 0  # some have only one
        return {**columns, "captions": captions}

    def as_batch(self, rows):
        ids = rows["captions"][:, 0]
        return {**rows, "input_ids": ids, "attention_mask": (ids != 0).long()}


def tiny_vq_vae(**settings):
    """A VQ-VAE of the images of ArrayImages with 4 x 4 codes of 6."""
    encoder = ConvNet(ArrayImages().spec, widths=(8, 8))
    method = VQVAE(encoder, SGD(), num_codes=6, code_dim=4, decoder_dim=8, **settings)
    method.codebook.codes.normal_()
    return method
