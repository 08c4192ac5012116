import math

import pytest
import torch

from ssl_lab.data.image.shapes import (
    FACTORS,
    RANGES,
    SHAPES,
    Shapes,
    bounding_boxes,
    draw,
    draw_factors,
    rgb,
    signed_distance,
)


def small(**settings):
    return Shapes(**{"num_train": 300, "num_val": 40, "num_test": 60, **settings})


def factors(**values):
    middle = {"shape": 0, "hue": 0.0, "scale": 0.3, "orientation": 0.0, "x": 0.5, "y": 0.5} | values
    return torch.tensor([[float(middle[name]) for name in FACTORS]])


def test_batches_hold_images_labels_and_factors():
    data = small(batch_size=32)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (32, 3, 32, 32) and batch["image"].dtype == torch.uint8
    assert batch["factors"].shape == (32, 6) and batch["factors"].dtype == torch.float32
    assert torch.equal(batch["label"], batch["factors"][:, 0].long())
    assert data.spec.shape == (3, 32, 32) and data.spec.class_names == SHAPES
    assert [len(data.columns(split)["label"]) for split in ("pretrain", "train", "val", "test")] == [300, 300, 40, 60]


def test_rows_depend_on_seed_split_and_number_alone():
    few, many = small(num_train=20).columns("train"), small(num_train=700).columns("train")
    for name in few:
        assert torch.equal(few[name], many[name][:20])
    assert not torch.equal(few["factors"], small(draw_seed=1, num_train=20).columns("train")["factors"])
    assert not torch.equal(small().columns("val")["factors"], small(num_test=40).columns("test")["factors"])


def test_factors_are_uniform_and_independent():
    drawn = draw_factors(20_000, seed=(0, 0)).double()
    for column, (low, high) in zip(drawn.T[1:], RANGES[1:], strict=True):
        assert low <= column.min() and column.max() <= high
        assert float(column.mean()) == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    assert torch.bincount(drawn[:, 0].long()).tolist() == pytest.approx([20_000 / 3] * 3, rel=0.05)
    assert (torch.corrcoef(drawn.T) - torch.eye(6)).abs().max() < 0.03


@pytest.mark.parametrize("image_size", [32, 64])
def test_shapes_have_the_area_and_the_centre_of_their_factors(image_size):
    drawn = draw_factors(200, seed=(1, 0))
    covered = draw(drawn, image_size).amax(1).double() / 255
    centres = (torch.arange(image_size, dtype=torch.float64) + 0.5) / image_size
    area = covered.mean((1, 2))
    torch.testing.assert_close(area, drawn[:, 2].double().square(), rtol=0.06 * 32 / image_size, atol=0)
    x = (covered * centres).mean((1, 2)) / area
    y = (covered * centres.unsqueeze(1)).mean((1, 2)) / area
    torch.testing.assert_close(torch.stack([x, y], 1), drawn[:, 4:].double(), rtol=0, atol=0.3 / image_size)


def test_edges_are_anti_aliased_and_moving_by_half_a_pixel_shows():
    still, moved = (draw(factors(x=0.5 + shift / 32, scale=8 / 32), 32)[0, 0] for shift in (0, 0.5))
    assert still[16].tolist() == [0] * 12 + [255] * 8 + [0] * 12
    assert moved[16].tolist() == [0] * 12 + [128] + [255] * 7 + [128] + [0] * 11


def test_the_distance_from_an_ellipse_is_that_to_its_nearest_point_near_the_edge():
    row = factors(shape=1, orientation=0.4)
    found = signed_distance(row, 64)[0]
    angle = torch.linspace(0, 2 * math.pi, 20_000)
    short = 0.3 / math.sqrt(2 * math.pi)
    u, v = 2 * short * angle.cos(), short * angle.sin()
    x = 0.5 + u * math.cos(0.4) - v * math.sin(0.4)
    y = 0.5 - u * math.sin(0.4) - v * math.cos(0.4)
    centres = (torch.arange(64) + 0.5) / 64
    rows, columns = torch.where(found.abs() < 1.0 / 64)
    nearest = torch.cdist(torch.stack([centres[columns], centres[rows]], 1), torch.stack([x, y], 1)).amin(1)
    assert len(rows) > 40
    torch.testing.assert_close(found[rows, columns].abs(), nearest, rtol=0, atol=0.15 / 64)
    assert torch.isfinite(signed_distance(factors(shape=1, x=0.5, y=0.5), 31)).all(), "a pixel in the very centre"
    assert signed_distance(factors(shape=1, x=0.5, y=0.5), 31)[0, 15, 15] < 0


def test_orientation_turns_counter_clockwise():
    """A side of the triangle faces right; turned by a quarter it faces up."""
    right, up = (draw(factors(shape=2, orientation=turn, scale=0.32), 64)[0].amax(0) > 127 for turn in (0, math.pi / 2))
    assert torch.equal(torch.rot90(right), up)
    assert right[:, 40].sum() > right[:, 22].sum()


def test_boxes_are_tight_around_masks():
    data = small(image_size=256, num_train=1, num_test=60)
    batch = data.columns("test")
    masks, boxes = data.masks(batch), data.boxes(batch)
    assert masks.shape == (60, 256, 256) and boxes.shape == (60, 4)
    for mask, box in zip(masks, boxes, strict=True):
        rows, columns = torch.where(mask)
        found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        assert (found - box).abs().max() < 2.5  # a sharp corner may lie between pixel centres
    assert (
        0
        <= bounding_boxes(draw_factors(5000, seed=(2, 0))).min()
        <= bounding_boxes(draw_factors(5000, seed=(2, 0))).max()
        <= 1
    )


def test_masks_are_where_the_image_is_mostly_covered():
    data = small()
    batch = data.columns("test")
    assert torch.equal(data.masks(batch), batch["image"].amax(1) >= 128)


def test_hues_are_those_of_the_standard_library():
    import colorsys

    hues = torch.linspace(0, 0.99, 50)
    expected = torch.tensor([colorsys.hsv_to_rgb(hue, 1, 1) for hue in hues.tolist()])
    torch.testing.assert_close(rgb(hues), expected)


def test_captions_say_what_is_seen():
    data = small()
    batch = {"factors": torch.cat([factors(scale=0.16, x=0.31, y=0.31), factors(shape=2, hue=0.66), factors(y=0.69)])}
    assert data.captions(batch) == [
        "a small red square at the top left",
        "a large blue triangle at the centre",
        "a large red square at the bottom centre",
    ]


def test_wrong_numbers_and_missing_splits_are_refused():
    with pytest.raises(ValueError, match="image_size >= 8.*found 4"):
        Shapes(image_size=4)
    with pytest.raises(ValueError, match="no split 'val'"):
        small(num_val=0).columns("val")
