import pytest
import torch
from ranks.fixed import IMAGES, images
from torch import nn

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.vit import ViT
from ssl_lab.methods.mae import MAE
from ssl_lab.optim import SGD


def make(*, spec=IMAGES, patch_size=2, **settings):
    torch.manual_seed(0)
    encoder = ViT(spec, patch_size=patch_size, embed_dim=16, depth=2, num_heads=2)
    return MAE(encoder, SGD(), nn.Identity(), decoder_dim=8, decoder_depth=2, decoder_num_heads=2, **settings)


def remember_masks(method):
    masks = []
    method.masking.register_forward_hook(lambda module, inputs, output: masks.append(output))
    return masks


def paper_prediction(method, image, ids_keep, ids_masked):
    """As the paper tells it, for one image: mask tokens appended, all put back in order, then positions and decoder."""
    decoder = method.decoder
    tokens = decoder.embed(method.encoder(image[None], ids_keep[None]))[0]
    full = [None] * method.encoder.num_patches
    for token, i in zip(tokens[1:], ids_keep.tolist(), strict=True):
        full[i] = token + decoder.positions[i]
    for i in ids_masked.tolist():
        full[i] = decoder.mask_token + decoder.positions[i]
    x = decoder.blocks(torch.stack([tokens[0], *full])[None])
    return decoder.to_pixels(x)[0, 1:]


def slow_loss(method, batch, ids_keep, ids_masked):
    size, columns = method.encoder.patch_size, method.encoder.grid[1]
    total, count = 0.0, 0
    for b, image in enumerate(batch["image"]):
        predicted = paper_prediction(method, image, ids_keep[b], ids_masked[b])
        for i in ids_masked[b].tolist():
            top, left = size * (i // columns), size * (i % columns)
            patch = (image[:, top : top + size, left : left + size] / 255).double().flatten()
            if method.norm_pixels:
                mean = patch.sum() / len(patch)
                variance = ((patch - mean) ** 2).sum() / (len(patch) - 1)
                patch = (patch - mean) / (variance + 1e-6) ** 0.5
            for value, target in zip(predicted[i], patch, strict=True):
                total, count = total + (value - target) ** 2, count + 1
    return total / count


@pytest.mark.parametrize("norm_pixels", [True, False])
@pytest.mark.parametrize("mask_ratio", [0.75, 0.4])
def test_the_loss_is_that_of_a_loop_over_removed_patches(norm_pixels, mask_ratio):
    method = make(norm_pixels=norm_pixels, mask_ratio=mask_ratio).double()
    masks = remember_masks(method)
    loss = method.training_step(images(0), 0)
    expected = slow_loss(method, images(0), *masks[0])
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-5, atol=0)


def test_visible_patches_cost_nothing_and_hidden_pixels_are_not_seen():
    """The gradient of the loss with respect to a pixel: through the encoder where visible, as a target where removed."""
    method = make(norm_pixels=False)
    masks = remember_masks(method)
    image = torch.rand(4, 1, 8, 8, requires_grad=True)
    loss = method.training_step({"image": image}, 0)
    ids_keep, ids_masked = masks[0]
    predicted = method.decoder(method.encoder(image, ids_keep), ids_keep, ids_masked)
    (gradient,) = torch.autograd.grad(loss, image)
    (through_encoder,) = torch.autograd.grad(predicted.square().sum(), image)
    kept = torch.zeros(4, 16).scatter(1, ids_keep, 1).view(4, 1, 4, 4)
    kept = kept.repeat_interleave(2, 2).repeat_interleave(2, 3).bool()
    assert (through_encoder[~kept] == 0).all()
    assert (through_encoder[kept] != 0).all()
    assert (gradient[~kept] != 0).all()


def test_reconstructions_keep_what_was_visible_and_undo_the_normalisation():
    method = make()
    masks = remember_masks(method)
    method.decoder.forward = lambda tokens, ids_keep, ids_masked: torch.zeros(*ids_masked.shape, 4)
    batch = images(0)
    filled = method.capabilities()["reconstruct"](batch)
    x = batch["image"].float() / 255
    mean = nn.functional.avg_pool2d(x, 2)
    kept = torch.zeros(len(x), 16).scatter(1, masks[0][0], 1).view(-1, 1, 4, 4)
    kept, mean = (t.repeat_interleave(2, 2).repeat_interleave(2, 3) for t in (kept, mean))
    torch.testing.assert_close(filled, torch.where(kept.bool(), x, mean))
    assert torch.equal(filled, method.capabilities()["reconstruct"](batch))


def test_a_perfect_decoder_reconstructs_the_image():
    method = make()
    batch = images(0)
    x = (batch["image"].float() / 255).unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).view(-1, 16, 4)

    def perfect(tokens, ids_keep, ids_masked):
        removed = x.gather(1, ids_masked[..., None].expand(-1, -1, 4))
        return (removed - removed.mean(2, keepdim=True)) / (removed.var(2, keepdim=True) + 1e-6).sqrt()

    method.decoder.forward = perfect
    torch.testing.assert_close(method.reconstruct(batch), batch["image"].float() / 255)
    assert method.training_step(batch, 0) < 1e-8


def test_pictures_show_image_mask_and_reconstruction():
    method = make()
    grid = method.pictures(images(0))["reconstructions"]
    image, masked, filled = grid.images
    assert grid.row_names == ("image", "masked", "reconstruction")
    assert image.shape == (12, 1, 8, 8)
    grey = masked == 0.5
    assert torch.equal(grey.float().mean((1, 2, 3)), torch.full((12,), 0.75))
    assert torch.equal(masked[~grey], image[~grey])
    assert torch.equal(filled[~grey], image[~grey])


def test_features_are_those_of_whole_images():
    method = make()
    batch = images(0)
    torch.testing.assert_close(method.features(batch), method.encoder(batch["image"])[:, 1:].mean(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_ratio": 0.99}, "mask_ratio=0.99 keeps 0 of 16"),
        ({"mask_ratio": 1.5}, "lies between 0 and 1, found 1.5"),
        ({"patch_size": 8, "mask_ratio": 0.5}, "keeps 0 of 1"),
        ({"patch_size": 1}, "the patches have one value each"),
    ],
)
def test_refuses_what_removes_all_or_has_no_deviation(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_refuses_an_encoder_of_whole_images():
    with pytest.raises(ValueError, match="a ConvNet takes whole images"):
        MAE(ConvNet(IMAGES, widths=(8,)), SGD(), nn.Identity())
