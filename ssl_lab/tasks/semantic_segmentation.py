"""A class for every pixel: heads on feature maps, loss, masks, and their scores."""

from __future__ import annotations

import colorsys
import math
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias, final, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ssl_lab.captions import Caption
from ssl_lab.data.base import GIVEN, DataModule
from ssl_lab.devices import wide
from ssl_lab.evaluation.protocol import StreamingProtocol, check_none_broken, outputs_of
from ssl_lab.metrics import Metric, Table
from ssl_lab.modalities.image import ImageSpec, as_float
from ssl_lab.optim import Optim
from ssl_lab.pretext.base import Augmentation
from ssl_lab.tasks.base import FineTuning, full_precision
from ssl_lab.tasks.metrics import finetuned
from ssl_lab.types import Batch, ClassMap, Encoder, ImageGrid, Spec

Head: TypeAlias = Literal["linear", "fcn"]

IGNORED = 255  # pixels of a mask that do not count
_HEAD_DIM = 256
_NUM_PICTURES = 6
_MASKS = Caption(
    title="Masks",
    explanation="Unseen images, the class of each pixel in colours, and what was predicted; black does not count.",
    order=3,
)
_GOLDEN = (math.sqrt(5) - 1) / 2


@final
class SemanticSegmentation(FineTuning):
    r"""Scores of the classes at each place of an encoder's last map, enlarged to the mask, trained with cross entropy.

    .. math:: L = -\frac1N \sum_{i, p} \log \mathrm{softmax}(\mathrm{up}(g(f(x_i))))_{p,\, y_{ip}}

    over the N pixels of all images that count, whatever image they are of; f is the last feature map, g the head, and up
    bilinear. With the head ``linear`` and the encoder frozen this is the linear protocol of dense features.

    Args:
        encoder: Encoder with feature maps.
        optim: Optimizer and schedule.
        augment: Changes image and mask of a training step together; None for nothing.
        head: ``linear``: batch normalisation and a 1x1 convolution; ``fcn``: two 3x3 convolutions with batch normalisation
            and ReLU before it, as in fully convolutional networks of today.
        head_dim: Channels within ``fcn``.
        layer_decay: Factor of the learning rate from each block to the one below it.
        freeze: ``none``, ``embeddings``, ``encoder``, or the number of first blocks.
        dropout: Of whole channels before the last layer.

    Raises:
        NotOfferedError: If the encoder has no feature maps.
        ValueError: If the data has no masks, or a setting makes no sense.

    References:
        Long et al., Fully Convolutional Networks for Semantic Segmentation (2015). arXiv:1411.4038
        Oquab et al., DINOv2 (2023), section 7.4: the linear head. arXiv:2304.07193
    """

    takes: ClassVar[type[Spec] | None] = ImageSpec
    needs_columns: ClassVar[tuple[str, ...]] = ("mask",)
    columns_from: ClassVar[Mapping[str, str]] = {"mask": "data=mask_folder for images with a mask each"}
    source_of_classes: ClassVar[str] = "Choose data=mask_folder"

    def __init__(
        self,
        encoder: Encoder,
        optim: Optim,
        augment: Augmentation | None = None,
        *,
        head: Head = "linear",
        head_dim: int = _HEAD_DIM,
        layer_decay: float = 1.0,
        freeze: str | int = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(encoder, optim, layer_decay=layer_decay, freeze=freeze, dropout=dropout)
        dim = self._map_dim()
        if head not in ("linear", "fcn") or head_dim < 1:
            raise ValueError(
                f"Cannot segment with method.head={head} and method.head_dim={head_dim}. Choose linear or fcn, and at least "
                "1 channel."
            )
        if head == "linear" and head_dim != _HEAD_DIM:
            raise ValueError(
                f"method.head_dim={head_dim} has no effect with method.head=linear, which has no channels of its own. Leave "
                "it out, or set method.head=fcn."
            )
        num_classes = len(pixel_classes(encoder.spec))
        last = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(dim if head == "linear" else head_dim, num_classes, 1))
        self.augment = augment
        self.head = nn.Sequential(
            *([nn.BatchNorm2d(dim)] if head == "linear" else [_conv(dim, head_dim), _conv(head_dim, head_dim)]), last
        )

    @torch.no_grad()
    def _map_dim(self) -> int:
        """Channels of the last map, found with one image and without its batch statistics."""
        maps = self.in_eval_mode(self.encoder.maps)(self.encoder.spec.example(1))
        return int(maps[-1].tensor.shape[1])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Augment, encode, classify each pixel."""
        if self.augment is not None:
            batch = self.augment(batch)
        masks = batch["mask"].long()
        total = F.cross_entropy(full_precision(self.logits(batch)), masks, ignore_index=IGNORED, reduction="sum")
        return self.mean_over_targets(total, (masks != IGNORED).sum())

    def logits(self, batch: Batch) -> Tensor:
        """Scores (B, C, H, W) of the classes, as large as the images."""
        scores = self.head(self.encoder.maps(batch)[-1].tensor)
        return F.interpolate(scores, batch["image"].shape[2:], mode="bilinear", align_corners=False)

    def scores(self, batch: Batch) -> Tensor:
        """Return the scores of the classes of each pixel (B, C, H, W)."""
        return self.logits(batch)

    def score_names(self) -> tuple[str, ...]:
        """The classes of pixels."""
        return pixel_classes(self.encoder.spec)

    def masks(self, batch: Batch) -> Tensor:
        """The most probable class of each pixel, uint8 (B, H, W); 255 where a score is not finite."""
        logits = self.logits(batch)
        return logits.argmax(1).masked_fill(~logits.isfinite().all(1), IGNORED).byte()

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Features, and masks."""
        return {**super().capabilities(), "masks": self.in_eval_mode(torch.no_grad()(self.masks))}

    def predict(self, datamodule: DataModule, *, device: torch.device) -> list[dict[str, Any]]:
        """A mask as large as each picture, and the share of each class in it.

        The network sees a picture resized, and its centre where the shape is another one. The mask is enlarged to the
        picture by the nearest pixel; outside of what was seen it is 255.
        """
        assert isinstance(datamodule, SizedPictures)
        fn = self.capabilities()["masks"]
        (masks,) = outputs_of(lambda batch: (fn(batch),), datamodule, GIVEN, device=device)
        broken = int((masks == IGNORED).flatten(1).any(1).sum())
        check_none_broken(broken, len(masks), what="Scores", unit="masks", use="written")
        names = pixel_classes(self.encoder.spec)
        palette = (colours(len(names)) * 255).round().byte().numpy()
        rows = []
        for mask, size in zip(masks.numpy(), datamodule.given_sizes, strict=True):
            shares = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
            rows.append(
                {
                    "mask": ClassMap(pixels=over_picture(mask, size), colours=palette),
                    "shares": dict(zip(names, shares.tolist(), strict=True)),
                }
            )
        return rows

    def pictures(self, batch: Batch) -> Mapping[str, ImageGrid]:
        """A few images of the batch, their masks and the predicted ones; pixels that do not count are black."""
        num = len(batch["image"])
        spread = torch.linspace(0, num - 1, min(num, _NUM_PICTURES)).long()  # neighbours may be frames of one film
        few = {name: batch[name][spread.to(batch[name].device)] for name in ("image", "mask")}
        names = pixel_classes(self.encoder.spec)
        palette = colours(len(names)).to(few["image"].device)
        masks = (few["mask"], self.capabilities()["masks"](few))
        rows = [
            as_float(few["image"]).expand(-1, 3, -1, -1),
            *(palette[mask.long()].permute(0, 3, 1, 2) for mask in masks),
        ]
        shown = [int(k) for k in torch.stack(masks).unique()]
        legend = {names[k] if k < len(names) else "not counted": palette[k].tolist() for k in shown}
        grid = ImageGrid(
            images=torch.stack(rows), row_names=("image", "mask", "prediction"), legend=legend, caption=_MASKS
        )
        return {"masks": grid}


@runtime_checkable
class SizedPictures(typing.Protocol):
    """Data to which pictures of any size can be given."""

    given_sizes: Sequence[tuple[int, int]]
    """Height and width of each before it was resized."""


def over_picture(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A mask of the centre of a picture, enlarged to lie over it; 255 beside the centre.

    Args:
        mask: Classes (h, w) of the largest part in the middle of the picture that has their shape.
        size: Height and width of the picture.
    """
    scale = min(size[0] / mask.shape[0], size[1] / mask.shape[1])
    height, width = (min(whole, max(1, round(scale * side))) for whole, side in zip(size, mask.shape, strict=True))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    found = np.full(size, IGNORED, np.uint8)
    part = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    found[top : top + height, left : left + width] = np.array(part)
    return found


def _conv(d_in: int, d_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(d_in, d_out, 3, padding=1, bias=False), nn.BatchNorm2d(d_out), nn.ReLU(inplace=True))


def colours(num_classes: int) -> Tensor:
    """A colour in [0, 1] for each value of a mask, (256, 3): distinct hues for classes, black for the rest."""
    palette = torch.zeros(256, 3)
    for k in range(num_classes):
        palette[k] = torch.tensor(colorsys.hsv_to_rgb(k * _GOLDEN % 1, (0.75, 0.45)[k % 2], (1.0, 0.7, 0.85)[k % 3]))
    return palette


_OF_CLASSES = Table(
    key="class_iou",
    title="Intersection over union of each class, %",
    explanation="Pixels of a class that were found, as a share of those that are of the class or were taken for it.",
    order=11,
    secondary=True,
)


class MaskScores(StreamingProtocol):
    r"""Mean intersection over union and accuracy of the pixels of a whole split, counted batch by batch.

    .. math:: \mathrm{IoU}_c = \frac{n_{cc}}{\sum_k n_{ck} + \sum_k n_{kc} - n_{cc}}

    of the counts n of pixels of class c that were taken for class k, over all images together. The mean is over the classes
    that the masks of the split hold. Where they hold one class, no score says anything and all are not a number.

    Metrics: ``finetune/miou``, ``finetune/pixel_accuracy``, and ``class_iou/<name>`` of each class, in [0, 1].

    References:
        Everingham et al., The PASCAL Visual Object Classes Challenge: A Retrospective (2015), section 3.2.
    """

    metrics: ClassVar[Mapping[str, Metric]] = {
        "finetune/miou": finetuned("mIoU, %", order=6),
        "finetune/pixel_accuracy": finetuned("pixels right, %", order=6),
        "class_iou/*": Metric(column="{0}", table=_OF_CLASSES, better="higher", percent=True),
    }
    needs: ClassVar[str] = "masks"
    needs_columns: ClassVar[tuple[str, ...]] = SemanticSegmentation.needs_columns
    columns_from = SemanticSegmentation.columns_from

    def prepare(self, fn: Callable[[Batch], Tensor], datamodule: DataModule, *, device: torch.device) -> int:
        """Number of classes."""
        return len(pixel_classes(datamodule.spec))

    def update(self, fn: Callable[[Batch], Tensor], batch: Batch, prepared: int) -> dict[str, Tensor]:
        """Count the classes ``fn(batch) -> (B, H, W)``; 255 is that of scores that are not finite."""
        return {"pixels": confusion(fn(batch), batch["mask"], prepared)}

    def compute(self, sums: Mapping[str, Tensor], datamodule: DataModule, split: str) -> dict[str, float]:
        """Scores of the counts.

        Raises:
            ValueError: If a pixel that counts has scores that are not finite, or no pixel counts.
        """
        names, counts = pixel_classes(datamodule.spec), sums["pixels"]
        truth, found, right = counts.sum(1), counts[:, :-1].sum(0), counts.diagonal()
        check_none_broken(int(counts[:, -1].sum()), int(truth.sum()), split, what="Scores", unit="pixels")
        if not truth.any():
            raise ValueError(
                f"Cannot score masks on the {split} split: none of its pixels counts. Score another split."
            )
        occurs = truth > 0
        shares = (wide(right) / (truth + found - right).clamp(min=1))[occurs]
        scores = {"finetune/miou": float(shares.mean()), "finetune/pixel_accuracy": float(right.sum() / truth.sum())}
        scores |= {f"class_iou/{names[k]}": float(iou) for k, iou in zip(occurs.nonzero(), shares, strict=True)}
        if len(shares) < 2:
            warnings.warn(
                f"All pixels of the {split} split are of the class {names[int(truth.argmax())]}, so no scores are given.",
                stacklevel=2,
            )
            return dict.fromkeys(scores, math.nan)
        return scores


def pixel_classes(spec: Spec) -> tuple[str, ...]:
    """Names of the classes of pixels, their numbers where they have none."""
    classes = spec.classes("mask")
    assert classes is not None
    return classes.names or tuple(map(str, range(classes.number)))


def confusion(predicted: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Count pixels by true and predicted class, int64 (C, C + 1); the last column counts predictions of no class.

    Args:
        predicted: Predicted classes (B, H, W).
        truth: Classes (B, H, W); pixels of 255 do not count.
        num_classes: Number of classes C.
    """
    counted = truth != IGNORED
    pairs = truth[counted].long() * (num_classes + 1) + predicted[counted].long().clamp(max=num_classes)
    return torch.bincount(pairs, minlength=num_classes * (num_classes + 1)).view(num_classes, num_classes + 1)
