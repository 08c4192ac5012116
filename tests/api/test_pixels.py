"""Arrays of any layout as uint8 (N, C, H, W), and labels."""

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lab.api.pixels import as_one_size, as_pixels

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)
FIRST = IMAGES.transpose(0, 3, 1, 2)


@pytest.mark.parametrize(
    "given",
    [
        IMAGES,
        FIRST,
        torch.from_numpy(FIRST.copy()),
        IMAGES.astype(np.int64),
        IMAGES / 255,
        (IMAGES / 255).astype(np.float32),
        torch.from_numpy(FIRST / 255).requires_grad_(),
    ],
)
def test_all_layouts_and_types_are_the_same_pixels(given):
    pixels = as_pixels(given)
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, FIRST)


def test_grey_images_need_no_axis_of_channels():
    assert as_pixels(IMAGES[..., 0]).shape == (5, 1, 6, 8)
    np.testing.assert_array_equal(as_pixels(IMAGES[..., :1]), as_pixels(IMAGES[..., 0]))
    assert set(np.unique(as_pixels(np.eye(4, dtype=bool)[None]))) == {0, 255}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (IMAGES.astype(np.float32), r"floats from 0 to 255: .*uint8"),
        (IMAGES / 127.5 - 1, r"floats from -1 to 1: .*Leave out what normalises"),
        (IMAGES.astype(np.int32) * 100, "whole numbers from 0 to 25500"),
        (IMAGES.reshape(5, -1), r"\(5, 144\).*images.reshape"),
        (IMAGES[0], "looks like one image"),
        (np.repeat(IMAGES[..., :1], 4, -1), "Leave transparency out"),
        (np.zeros((2, 5, 6, 7)), "neither its second nor its last axis"),
        (np.zeros((2, 3, 5, 3)), "Cannot tell the channels"),
        (np.zeros((0, 4, 4)), "no rows"),
        (FIRST[0], r"one image \(C, H, W\) or three grey ones"),
        (torch.from_numpy(FIRST[0] / 255), r"Give one as image\[None\], or three as images\[:, None\]"),
        (np.eye(4, dtype=np.uint8)[None], r"0 and 1 alone: .*nearly black. Give images.astype\(bool\)"),
        (torch.eye(8, dtype=torch.int64).expand(4, 8, 8), "0 and 1 alone"),
        (np.array([IMAGES[0], None], dtype=object), "not numbers"),
        (np.where(np.arange(5)[:, None, None, None] == 3, np.nan, IMAGES / 255), "image 3: .*NaN"),
        (np.where(np.arange(5)[:, None, None, None] == 3, np.inf, IMAGES / 255), "image 3: .*infinite"),
    ],
)
def test_what_is_no_image_is_refused_with_what_was_found(given, told):
    with pytest.raises(ValueError, match=told):
        as_pixels(given)


def test_single_images_of_any_kind_become_one_array():
    kinds = [IMAGES[0], FIRST[1], torch.from_numpy(FIRST[2].copy()) / 255, Image.fromarray(IMAGES[3]), IMAGES[4]]
    np.testing.assert_array_equal(as_one_size(kinds, image_size=None), FIRST)
    resized = as_one_size([IMAGES[0], IMAGES[1][:4]], image_size=4)
    assert resized.shape == (2, 3, 4, 4)
    with pytest.raises(ValueError, match="Give image_size="):
        as_one_size([IMAGES[0], IMAGES[1][:4]], image_size=None)
    with pytest.raises(ValueError, match="all to RGB, or all to grey"):
        as_one_size([IMAGES[0], IMAGES[1][..., 0]], image_size=None)
    with pytest.raises(ValueError, match="Cannot read image 1: found dict"):
        as_one_size([IMAGES[0], {}], image_size=None)


def test_pictures_of_pillow_are_read_as_their_files_are(tmp_path):
    from ssl_lab.data.image.decode import decode

    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    kinds = {
        "deep": (Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000), {}),
        "turned": (Image.fromarray(IMAGES[0]), {"exif": exif}),
        "transparent": (Image.fromarray(np.zeros((6, 8, 4), np.uint8)), {}),
    }
    for name, (picture, settings) in kinds.items():
        file = tmp_path / f"{name}.png"
        picture.save(file, **settings)
        with Image.open(file) as opened:
            np.testing.assert_array_equal(
                as_one_size([opened], image_size=None)[0], decode(file, channels=None, image_size=None), err_msg=name
            )
            assert opened.size == (8, 6), "the caller's picture stays open and as it is"


def test_masks_are_no_dark_images():
    mask = np.eye(8, dtype=np.uint8)
    for masks in ([mask, mask], [Image.fromarray(mask)]):
        with pytest.raises(ValueError, match="0 and 1 alone"):
            as_one_size(masks, image_size=None)
    assert as_one_size([mask, mask * 9, np.zeros_like(mask)], image_size=None).max() == 9, "dark images beside others"
    assert as_pixels(np.zeros((1, 8, 8), np.uint8)).max() == 0, "a black image is black"
    for masks in (mask.astype(bool), mask.astype(float)):
        assert as_one_size([masks], image_size=None).max() == 255


def test_masks_in_files_of_arrays_and_given_to_a_run_are_refused_too(tmp_path):
    from ssl_lab.data.image.arrays import ImageArrays
    from ssl_lab.data.image.given import as_encoded

    masks = np.tile(np.eye(8, dtype=np.uint8), (30, 1, 1, 1))
    np.save(tmp_path / "train_images.npy", masks)
    with pytest.raises(ValueError, match="0 and 1 alone"):
        _ = ImageArrays(str(tmp_path)).spec
    with pytest.raises(ValueError, match="0 and 1 alone"):
        as_encoded(masks[0])
