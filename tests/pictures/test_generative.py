import math

import pytest
import torch
from arrays import ArrayImages
from engine.tiny import Tiny, TinyEncoder

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.engine.callbacks.pictures import drawn_batch
from ssl_lab.methods.gan import GAN
from ssl_lab.methods.vae import VAE
from ssl_lab.optim import AdamW
from ssl_lab.pictures import generative as module
from ssl_lab.pictures.generative import (
    generative_pictures,
    interpolation,
    latent_dim,
    lerp,
    nearest_images,
    slerp,
    traversal,
)


def built(method, **settings):
    torch.manual_seed(0)
    return method(ConvNet(ArrayImages().spec, widths=(8,)), AdamW(), **settings)


def batch(number=12):
    columns = ArrayImages().columns("val")
    return {name: column[:number] for name, column in columns.items()}


def test_pictures_follow_from_what_a_method_offers():
    vae, gan = built(VAE, latent_dim=5), built(GAN, latent_dim=6)
    found = generative_pictures(vae, batch(), ArrayImages())
    assert {name: grid.images.shape[:2] for name, grid in found.items()} == {
        "interpolations": (4, 10),
        "traversals": (5, 9),
        "nearest_neighbours": (4, 12),
    }
    found = generative_pictures(gan, batch(), ArrayImages())
    assert {name: grid.images.shape[:2] for name, grid in found.items()} == {
        "interpolations": (4, 10),
        "nearest_neighbours": (4, 12),
    }
    for grid in found.values():
        assert grid.images.shape[2:] == (1, 8, 8) and 0 <= grid.images.min() and grid.images.max() <= 1
    assert generative_pictures(Tiny(TinyEncoder(ArrayImages().spec)), batch(), ArrayImages()) == {}
    assert (latent_dim(vae), latent_dim(gan)) == (5, 6)


def test_pictures_are_the_same_at_every_step_of_the_same_weights_and_leave_the_mode_alone():
    gan = built(GAN).train()
    first, second = (generative_pictures(gan, batch(), ArrayImages()) for _ in range(2))
    assert all(torch.equal(first[name].images, second[name].images) for name in first)
    assert gan.generator.training


def test_drawn_images_of_a_sorted_split_are_of_all_classes():
    class Sorted(ArrayImages):
        def columns(self, split):
            columns = super().columns(split)
            order = columns["label"].argsort(stable=True)
            return {name: column[order] for name, column in columns.items()}

    for size in (32, 512):
        data = Sorted(eval_batch_size=size)
        found = drawn_batch(data)
        assert found["label"][:12].unique().tolist() == [0, 1]
        assert torch.equal(found["image"], data.columns("val")["image"][found["index"]])
        assert all(torch.equal(found[name], again) for name, again in drawn_batch(data).items())


def test_interpolations_begin_and_end_at_the_reconstructions():
    vae = built(VAE)
    grid = generative_pictures(vae, batch(), ArrayImages())["interpolations"].images
    reconstructions = vae.capabilities()["reconstruct"](batch())
    torch.testing.assert_close(grid[:, 0], reconstructions[:4])
    torch.testing.assert_close(grid[:, -1], reconstructions[4:8])


def test_ways_between_latents():
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    steps = interpolation(lambda z: z, a, b, mix=slerp, num_steps=4).images[0]
    angles = torch.tensor([0, 30, 60, 90]) * math.pi / 180
    torch.testing.assert_close(steps, 2 * torch.stack([angles.cos(), angles.sin()], dim=1))
    torch.testing.assert_close(interpolation(lambda z: z, a, b, mix=lerp, num_steps=3).images[0, 1], torch.ones(2))
    torch.testing.assert_close(slerp(a, 3 * a, 0.5), 2 * a)  # the same direction: no angle to divide by
    torch.testing.assert_close(slerp(a, a, 0.3), a)


def test_slerp_keeps_the_length_of_normal_latents_and_lerp_does_not():
    a, b = torch.randn(2, 20, 256, generator=torch.Generator().manual_seed(0))
    middle = {mix: mix(a, b, 0.5).norm(dim=1).mean() / a.norm(dim=1).mean() for mix in (lerp, slerp)}
    assert middle[slerp] == pytest.approx(1.0, abs=0.05) and middle[lerp] < 0.75


def test_traversals_change_one_dimension_within_the_range_of_the_codes():
    codes = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 3.0, 1.0, 0.5])
    grid = traversal(lambda z: z, codes, num_dims=3, num_values=5)
    assert grid.row_names == ("z[1]", "z[2]", "z[3]")
    for row, dim in zip(grid.images, (1, 2, 3), strict=True):
        others = [k for k in range(4) if k != dim]
        assert torch.equal(row[:, others], codes[:1, others].expand(5, -1))
        low, high = torch.quantile(codes[:, dim], torch.tensor([0.02, 0.98]))
        torch.testing.assert_close(row[:, dim], torch.linspace(float(low), float(high), 5))


@pytest.mark.parametrize("chunk", [7, 1000])
def test_nearest_images_are_those_of_a_full_comparison(monkeypatch, chunk):
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", chunk)
    train = ArrayImages().columns("train")["image"] / 255
    samples = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    samples[2] = train[40]
    found = nearest_images(samples, ArrayImages(), num_neighbours=3)
    order = (samples.flatten(1)[:, None] - train.flatten(1)).square().sum(2).argsort(dim=1)[:, :3]
    assert torch.equal(found, train[order].transpose(0, 1))
    assert torch.equal(found[0, 2], train[40])
    by_mean = nearest_images(
        samples, ArrayImages(), num_neighbours=1, embed=lambda b: module.as_float(b["image"]).mean((2, 3))
    )
    distance = (samples.mean((1, 2, 3))[:, None] - train.mean((1, 2, 3))).abs()
    assert torch.equal(by_mean[0], train[distance.argmin(1)])
    assert len(nearest_images(samples, ArrayImages(num_samples=2), num_neighbours=3)) == 2
