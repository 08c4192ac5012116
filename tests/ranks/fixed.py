"""Pretexts without chance, and small batches: what several ranks and one process must see alike."""

from dataclasses import replace

import torch
from torch import nn

from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.pair import PairSpec
from ssl_lab.modalities.text import TextSpec
from ssl_lab.pretext.base import Views
from ssl_lab.types import Classes

NUM_SAMPLES = 12  # of the joined batch
IMAGES = ImageSpec(shape=(1, 8, 8), mean=(0.5,), std=(0.3,), targets={"label": Classes(number=4)})
TEXT = TextSpec(length=12, vocab_size=64, pad_id=0, mask_id=4, special_ids=(0, 1, 2, 3, 4))
CAPTIONED = PairSpec(image=IMAGES, text=replace(TEXT, mask_id=None), targets=IMAGES.targets)


class FixedViews(Views):
    """Two views that depend on the image alone."""

    takes = ImageSpec

    def forward(self, batch, generator=None):
        x = batch["image"].double() / 255
        return {"image": torch.cat([x, x.flip(3) * 0.7 + 0.1])}


class FixedMultiCrop(Views):
    """The two fixed views and two smaller ones cut from them."""

    takes = ImageSpec
    several_sizes = True

    def forward(self, batch, generator=None):
        large = FixedViews()(batch)
        first, second = large["image"].chunk(2)
        return large, {"image": torch.cat([first[:, :, 2:6, 2:6], second[:, :, :4, 4:]])}


class FixedMasking(nn.Module):
    """Masks that depend on the ids alone and fall unevenly over the rows."""

    def forward(self, input_ids, attention_mask, spec, document_ids=None):
        chosen = (input_ids % 7 == 0) & (input_ids >= 5) & (attention_mask == 1)
        labels = torch.where(chosen, input_ids, -100)
        return torch.where(chosen, spec.mask_id, input_ids), labels

    def max_predictions(self, length):
        return None


def images(step):
    """A joined batch of images with labels, another one at each step."""
    generator = torch.Generator().manual_seed(step)
    return {
        "image": torch.randint(0, 256, (NUM_SAMPLES, 1, 8, 8), dtype=torch.uint8, generator=generator),
        "label": torch.randint(0, 4, (NUM_SAMPLES,), generator=generator),
        "index": torch.arange(NUM_SAMPLES),
    }


def sentences(step):
    """A joined batch of token ids; half of the rows are short, so that ranks have unequal numbers of tokens."""
    ids = torch.randint(5, 64, (NUM_SAMPLES, 12), generator=torch.Generator().manual_seed(step))
    ids[: NUM_SAMPLES // 2, 6:] = 0
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "index": torch.arange(NUM_SAMPLES)}


def packed_sentences(step):
    """The same rows, the long ones of two documents."""
    batch = sentences(step)
    documents = 1 + (torch.arange(12) >= 7).long().expand(NUM_SAMPLES, -1)
    return {**batch, "document_ids": documents * batch["attention_mask"]}


def triples(step):
    """A joined batch of texts with partners and hard negatives."""
    first, second, negative = (sentences(3 * step + k) for k in range(3))
    names = ("input_ids", "attention_mask")
    return {
        **first,
        **{f"second_{name}": second[name] for name in names},
        **{f"negative_{name}": negative[name] for name in names},
    }


def captioned(step):
    """A joined batch of images with a caption each."""
    return {**images(step), **sentences(step)}
