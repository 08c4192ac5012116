import io

import numpy as np
import pytest
from data.picture_files import BLUE, RED, grey, two_colours
from PIL import EpsImagePlugin, Image

from ssl_lab.data.image.decode import decode
from ssl_lab.report.animation import opened


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rgb(content, image_size=None):
    return decode(content, channels=3, image_size=image_size)


def close(pixel, colour, tolerance=25):
    return np.abs(pixel.astype(int) - colour).max() <= tolerance


def test_plain_images_keep_their_pixels():
    image = two_colours()
    expected = np.array(image).transpose(2, 0, 1)
    np.testing.assert_array_equal(rgb(encoded(image, "PNG")), expected)
    np.testing.assert_array_equal(rgb(np.array(image)), expected)
    np.testing.assert_array_equal(rgb(encoded(image.quantize(4), "PNG")), expected)  # palette


def test_files_and_bytes_are_read_alike(tmp_path):
    two_colours().save(tmp_path / "x.png")
    np.testing.assert_array_equal(rgb(tmp_path / "x.png"), rgb((tmp_path / "x.png").read_bytes()))


def test_cameras_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored rows are to be turned clockwise by 90 degrees
    pixels = rgb(encoded(two_colours((32, 16)), "JPEG", quality=95, exif=exif))
    assert pixels.shape == (3, 32, 16)
    assert close(pixels[:, 4, 8], RED) and close(pixels[:, 28, 8], BLUE)


def test_cmyk():
    pixels = rgb(encoded(two_colours().convert("CMYK"), "JPEG", quality=95))
    assert pixels.shape == (3, 16, 16) and close(pixels[:, 8, 3], RED) and close(pixels[:, 8, 12], BLUE)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_greys_keep_their_upper_bits(kind):
    values = np.array([[0, 255, 256, 65535]], np.uint16).repeat(4, axis=0)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(values), kind), channels=None, image_size=None)[0, 0],
                                  [0, 0, 1, 255])  # fmt: skip


def test_dark_16_bit_greys_are_not_mistaken_for_8_bit():
    values = np.full((4, 4), 200, np.uint16)
    assert decode(encoded(Image.fromarray(values), "PNG"), channels=1, image_size=None).max() == 0


def test_float_greys():
    values = np.array([[0, 0.5, 1]], np.float32)
    content = encoded(Image.fromarray(values), "TIFF")
    np.testing.assert_array_equal(decode(content, channels=1, image_size=None)[0, 0], [0, 127, 255])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_laid_on_white(mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 2, 4))
    if mode == "P":
        image = image.quantize(4)
    elif mode == "LA":
        image = image.convert("LA")
    pixels = rgb(encoded(image, "PNG"))
    assert (pixels[:, :, :2] == 255).all() and (pixels[:, :, 2:] == 0).all()


def test_channels_follow_the_image_or_the_setting():
    for image, channels, expected in [
        (grey(7), None, 1),
        (grey(7), 3, 3),
        (two_colours(), None, 3),
        (two_colours(), 1, 1),
        (grey(7).convert("LA"), None, 1),
        (grey(255).convert("1"), None, 1),
    ]:
        assert decode(encoded(image, "PNG"), channels=channels, image_size=None).shape[0] == expected


@pytest.mark.parametrize("size", [(60, 20), (20, 60), (20, 20), (5, 9)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_resizing_cuts_the_centre_square(size, kind):
    image = Image.new("RGB", size, BLUE)
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    image.paste(RED, (left, top, left + side, top + side))
    pixels = rgb(encoded(image, kind), image_size=10)
    assert pixels.shape == (3, 10, 10) and close(pixels[:, 5, 5], RED)
    if kind == "PNG" and size != (5, 9):
        assert all(close(pixels[:, y, x], RED) for y in (0, 9) for x in (0, 9))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
def test_damaged_files_are_none(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    content = encoded(noise, kind)
    assert rgb(content) is not None
    assert rgb(content[: len(content) // 2]) is None
    assert rgb(b"no image") is None and rgb(b"") is None and rgb(None) is None


def test_pixels_of_unknown_range_are_refused_and_never_guessed_by_brightness():
    """The same value means the same grey in a dark and in a bright image."""

    def pixels_of(values):
        return decode(encoded(Image.fromarray(values), "TIFF"), channels=1, image_size=None)

    for values in (np.array([[0, 0.5, 200]]), np.array([[-0.1, 0.5, 1]]), np.array([[np.nan, 0, 1]])):
        assert pixels_of(values.astype(np.float32)) is None
    for values in ([[0, 100, 200]], [[0, 100, 70_000]], [[-1, 100, 1000]]):
        assert pixels_of(np.array(values, np.int32)) is None
    bright = pixels_of(np.array([[0, 256, 65535]], np.int32))
    assert bright.tolist() == [[[0, 1, 255]]]


def test_a_file_is_never_handed_to_another_program(tmp_path, monkeypatch):
    """PostScript under the name of a photograph would make Pillow start Ghostscript."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args: pytest.fail("Ghostscript was started"))
    two_colours().save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.jpg")
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.format == "EPS", "Pillow itself would read it"
    assert rgb(tmp_path / "x.jpg") is None
    assert rgb((tmp_path / "x.jpg").read_bytes()) is None
    assert opened(tmp_path / "x.jpg") is None
