"""The shared vocabulary: what a batch, a data set, an encoder and a picture are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from torch import Tensor, nn

from ssl_lab.layers import Layers, repeated_blocks

Modality: TypeAlias = Literal["image", "text", "image_text"]

Batch: TypeAlias = Mapping[str, Tensor]
"""Columns of equal length B.

``image``: uint8 (B, C, H, W) as stored, or float in [0, 1] once a pretext has touched it.
``input_ids``, ``attention_mask``: int64 (B, L).
``document_ids``: int64 (B, L), only where a row holds several documents: their numbers 1, 2, ... within the row, 0 for
padding.
``second_input_ids``, ``second_attention_mask``: the same of the other text of a pair; ``negative_input_ids``,
``negative_attention_mask``: of a text like the first that means something else.
``score``: float32 (B,), how similar the texts of a pair are, NaN where unknown.
``captions``: int64 (B, K, L), all texts of an image, in evaluation; those it lacks are padding from the first token on.
``token_labels``: int64 (B, L), class of each word at its first token, -1 where unknown, -100 where no word begins.
``token_type_ids``: int64 (B, L), 0 in the first of two joined texts, 1 in the second. ``context_mask``: bool (B, L), where an
answer may be. ``start_position``, ``end_position``: int64 (B,), its first and last token, 0 where there is none.
``target_input_ids``, ``target_attention_mask``: int64 (B, T), the text that is to be written.
``factors``: float32 (B, F), what images were drawn from, where that is known; whole numbers are kinds.
``label``: int64 (B,), absent where the data has none. ``index``: int64 (B,), the row within its split.

Rows that differ in size are padded with zeros to the largest of the batch, and ``<name>_size``, int64 (B, F), holds the sizes
of each row along the F axes that differ: of boxes (B, K, 4) ``boxes_size`` (B, 1), of samples of audio (B, T) and frames of
clips (B, T, C, H, W) also (B, 1), of images (B, C, H, W) ``image_size`` (B, 2), their height and width.
"""


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Facts of a data set that are known before training; encoders and decoders are sized from it.

    Attributes:
        modality: ``"image"``, ``"text"``, or ``"image_text"`` for images with captions.
        shape: Shape of one sample: (C, H, W) for images, with captions or without, (L,) tokens for text.
        text_length: Number of tokens L of a caption (images with captions).
        num_classes: Number of classes, or None without labels.
        class_names: Names of the classes, in label order; empty if unknown.
        mean: Mean of each image channel over the training split, pixels scaled to [0, 1].
        std: Standard deviation of each image channel, same scale.
        vocab_size: Number of token ids the tokenizer can produce (text).
        pad_id: Padding id (text).
        mask_id: Mask id (text); None if the tokenizer has none.
        eos_id: Id that ends a document (text); None if the tokenizer has none.
        special_ids: Ids that are not words: padding, mask, class, separator, unknown (text).
        continues_word: Ids of tokens that continue the word of the token before (text); empty if ids do not tell.
        target_length: Number of tokens of a text that is to be written (translation).
        target_vocab_size: Number of token ids of its tokenizer.
        target_ids: Its padding, begin and end id.
    """

    modality: Modality
    shape: tuple[int, ...]
    text_length: int | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    vocab_size: int | None = None
    pad_id: int | None = None
    mask_id: int | None = None
    eos_id: int | None = None
    special_ids: tuple[int, ...] = ()
    continues_word: tuple[int, ...] = field(default=(), repr=False, hash=False)  # most of a vocabulary
    target_length: int | None = None
    target_vocab_size: int | None = None
    target_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """Features of a grid of places.

    Attributes:
        tensor: Features (B, D, h, w).
        stride: Pixels of the input from one place to the next, so that h is the input's height divided by it, rounded up.
    """

    tensor: Tensor
    stride: int


class NotOfferedError(ValueError):
    """The encoder lacks what only some encoders offer, such as feature maps."""


class Encoder(nn.Module, ABC):
    """A network that turns a batch into one feature vector per sample.

    An encoder is built from a DataSpec and owns the scaling of its modality: it accepts images as uint8 or as
    floats in [0, 1] and normalises them itself.

    Attributes:
        spec: The data it was built for.
        embed_dim: Width D of its features.
        pretrained: Whether it starts from published weights instead of random ones.
        pooling: How features come from the places of an input: their ``mean``, a ``class`` token, or words of its own.
    """

    spec: DataSpec
    embed_dim: int
    pretrained: bool = False
    pooling: str = "mean"

    @abstractmethod
    def embed(self, batch: Batch) -> Tensor:
        """Features of a batch, shape (B, embed_dim). What every protocol and every export uses."""

    def pool(self, output: Tensor, *inputs: Tensor) -> Tensor:
        """Features from what a forward pass returned for its inputs; the same unless the encoder pools afterwards."""
        return output

    def maps(self, batch: Batch) -> tuple[FeatureMap, ...]:
        """Feature maps of a batch, the finest first; the last is what :meth:`embed` pools.

        A class token that is pooled instead stands beside them.

        Raises:
            NotOfferedError: If the encoder has none.
        """
        raise NotOfferedError(
            f"Cannot take feature maps of a {type(self).__name__}: it gives one vector per sample. Choose encoder=convnet, "
            "a ResNet, a ViT or a model of timm, or give the encoder a method maps()."
        )

    def layer_groups(self) -> Layers:
        """Its parameters from input to output: embeddings, blocks, rest, each parameter in one of them.

        Layer decay, freezing, sharding and the recomputation of activations go by them. Blocks are found by their
        repetition; an encoder whose parameters are registered in another order than that of their use, or whose blocks
        are not alike, says itself what they are.
        """
        return Layers.around(self, repeated_blocks(self))


@dataclass(frozen=True, kw_only=True)
class ImageGrid:
    """Images to look at, shape (R, N, C, H, W), values in [0, 1]; drawn as R rows of N images.

    Attributes:
        images: The pixels.
        row_names: One name per row, or empty.
    """

    images: Tensor
    row_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MaskedText:
    """Masked sentences to look at, all int64 (B, L).

    Attributes:
        input_ids: What the model saw.
        labels: The original id at positions that were chosen for prediction, -100 elsewhere.
        guesses: The model's most probable id at every position.
    """

    input_ids: Tensor
    labels: Tensor
    guesses: Tensor


Picture: TypeAlias = ImageGrid | MaskedText
