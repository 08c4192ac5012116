import pytest
import torch
from ranks.fixed import IMAGES, NUM_SAMPLES, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.mlp import MLPEncoder
from ssl_lab.generators.residual import ResidualDecoder
from ssl_lab.methods.vq_vae import VQVAE, Codebook
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.optim import SGD

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


def make(encoder=None, **settings):
    torch.manual_seed(0)
    encoder = encoder or ConvNet(IMAGES, widths=(4, 8))
    settings = {"num_codes": 6, "code_dim": 3, "decoder_dim": 8, **settings}
    return VQVAE(encoder, SGD(), **settings).double()


def nearest(codebook, vectors):
    """By a loop over vectors and codes."""
    return [min(range(len(codebook)), key=lambda k: float((v - codebook[k]).square().sum())) for v in vectors]


def test_step_is_the_loss_of_the_paper():
    method, batch = make(commitment=0.7), images(0)
    method.encoder.eval()  # so that the map can be asked for again
    loss = method.training_step(batch, 0)
    x = (batch["image"].float() / 255).double()
    z = method.to_map(method.encoder.maps({"image": x})[-1].tensor)
    index = nearest(method.codebook.codes, z.detach().permute(0, 2, 3, 1).flatten(0, 2))
    e = method.codebook.codes[index].view(NUM_SAMPLES, 4, 4, 3).permute(0, 3, 1, 2)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(method.decoder(e), x, reduction="sum")
    torch.testing.assert_close(loss, (bce + 0.7 * (z - e).square().sum()) / NUM_SAMPLES)


def test_the_gradient_goes_straight_through_the_codes():
    method, batch = make(commitment=1e-9), images(0)
    method.encoder.eval()
    method.training_step(batch, 0).backward()
    found = method.to_map.weight.grad.clone()
    method.zero_grad()

    x = (batch["image"].float() / 255).double()
    z = method.encode_map(x)
    e = method.codebook.codes[method.codebook(z)].requires_grad_()
    method.pixel_nll(method.decode_map(e), x).mean().backward()
    at_codes = e.grad
    method.zero_grad()
    z.backward(at_codes)
    torch.testing.assert_close(found, method.to_map.weight.grad, rtol=1e-6, atol=1e-9)


def test_codes_follow_the_means_of_what_they_are_assigned():
    torch.manual_seed(0)
    codebook = Codebook(num_codes=3, code_dim=2, decay=0.9, restart_share=0.01).double()
    counts, sums = [4.0, 2.0, 5.0], torch.randn(3, 2, dtype=torch.float64)
    codebook.counts.copy_(torch.tensor(counts))
    codebook.sums.copy_(sums)
    z = torch.randn(7, 2, dtype=torch.float64)
    index = torch.tensor([0, 0, 2, 1, 2, 2, 0])
    codebook.follow(z, index, codebook.use(index), step=0)
    for k in range(3):
        mine = [z[i] for i in range(7) if index[i] == k]
        count = 0.9 * counts[k] + 0.1 * len(mine)
        mean = (0.9 * sums[k] + 0.1 * sum(mine)) / count
        torch.testing.assert_close(codebook.codes[k], mean)
        assert codebook.counts[k].item() == pytest.approx(count)


def test_a_code_that_is_not_used_starts_again_at_a_vector_of_the_batch():
    torch.manual_seed(0)
    codebook = Codebook(num_codes=4, code_dim=2, decay=0.5, restart_share=0.2).double()
    codebook.counts.copy_(torch.tensor([10.0, 10.0, 0.3, 10.0]))
    codebook.sums.copy_(torch.randn(4, 2))
    z, index = torch.randn(12, 2, dtype=torch.float64), torch.tensor([0, 1, 3] * 4)
    copies = []
    for step in (3, 3, 4):
        copy = Codebook(num_codes=4, code_dim=2, decay=0.5, restart_share=0.2).double()
        copy.load_state_dict(codebook.state_dict())
        copy.follow(z, index, copy.use(index), step=step)
        copies.append(copy.codes)
        assert copy.counts.tolist() == [7, 7, 3, 7]  # the mean use is 12 / 4
        assert any(torch.allclose(copy.codes[2], row) for row in z)
        assert not any(torch.allclose(copy.codes[k], row) for k in (0, 1, 3) for row in z)
    assert torch.equal(copies[0], copies[1]) and not torch.equal(copies[0], copies[2])


def test_the_first_step_starts_unused_codes_and_the_state_is_whole():
    method, batch = make(), images(0)
    method.training_step(batch, 0)
    vectors, index, _ = method.assigned
    method.after_step()
    unused = set(range(6)) - set(index.tolist())
    assert unused
    for k in unused:
        assert any(torch.allclose(method.codebook.codes[k], row) for row in vectors)
    assert {"codebook.codes", "codebook.counts", "codebook.sums"} <= method.state_dict().keys()


def test_perplexity_counts_codes_in_use():
    method, logged = make(), {}
    method.log_losses = lambda loss, **parts: logged.update(parts) or loss
    method.codebook.forward = lambda z: torch.arange(z[..., 0].numel()).view(z.shape[:-1]) % 4
    method.training_step(images(0), 0)
    assert logged["perplexity"].item() == pytest.approx(4)
    method.codebook.forward = lambda z: torch.zeros(z.shape[:-1], dtype=torch.long)
    method.training_step(images(0), 0)
    assert logged["perplexity"].item() == pytest.approx(1)


def test_codes_and_back():
    method, batch = make(), images(0)
    fns = method.capabilities()
    codes = fns["codes"](batch)
    assert codes.shape == (NUM_SAMPLES, 4, 4) and codes.dtype == torch.int64
    assert torch.equal(fns["from_codes"](codes), fns["reconstruct"](batch))
    assert fns["reconstruct"](batch).shape == batch["image"].shape
    torch.testing.assert_close(fns["features"](batch), method.in_eval_mode(method.encoder)(batch["image"]))
    assert method.pictures(batch)["reconstructions"].images.shape == (2, 12, 1, 8, 8)


@pytest.mark.parametrize("size", [8, 12])
@pytest.mark.parametrize("widths", [(4,), (4, 8), (4, 8, 8)])
def test_sizes_follow_from_the_data(size, widths):
    spec = ImageSpec(shape=(3, size, size), mean=(0.5,) * 3, std=(0.3,) * 3)
    method = VQVAE(ConvNet(spec, widths=widths), SGD(), num_codes=4, code_dim=3, decoder_dim=4)
    images = torch.rand(2, 3, size, size)
    side = size // 2 ** (len(widths) - 1)
    assert method.codes({"image": images}).shape == (2, side, side)
    assert method.reconstruct({"image": images}).shape == images.shape


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="MLPEncoder: it gives one vector per sample"):
        make(MLPEncoder(IMAGES))
    with pytest.raises(ValueError, match="restart_share in"):
        make(restart_share=0.0)
    with pytest.raises(ValueError, match="fewer entries of encoder.widths"):
        ResidualDecoder(IMAGES, in_channels=2, map_size=(3, 3))
