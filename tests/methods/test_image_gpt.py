import math
from itertools import product

import pytest
import torch
from arrays import ArrayImages, tiny_vq_vae

from ssl_lab.cli.main import main
from ssl_lab.encoders.code_gpt import CodeGPT
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.evaluation.likelihood.codes import CodePrediction
from ssl_lab.methods.image_gpt import ImageGPT
from ssl_lab.methods.vae import VAE
from ssl_lab.methods.vq_vae import VQVAE
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.optim import SGD

SPEC = ArrayImages().spec


def make(codes=None, **settings):
    torch.manual_seed(0)
    encoder = CodeGPT(SPEC, codes=codes or tiny_vq_vae(), **{"embed_dim": 16, "depth": 2, "num_heads": 2, **settings})
    return ImageGPT(encoder, SGD())


def images(num=5):
    image = torch.randint(0, 256, (num, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"image": image}


@torch.no_grad()
def test_the_loss_is_that_of_a_loop_over_prefixes():
    """Each code by a forward pass of the plain GPT-2 of its own over what stands before it."""
    method = make().eval()
    batch = images()
    codes = method.encoder.codes.codes(batch).flatten(1)
    assert torch.equal(codes, method.encoder.codes_of(batch))
    losses = method.code_losses(batch)
    for b, t in product(range(5), range(16)):
        prefix = torch.tensor([[6, *codes[b, :t].tolist()]])
        log_p = method.encoder.gpt(prefix).logits[0, -1, :6].log_softmax(0)
        assert float(losses[b, t]) == pytest.approx(-float(log_p[codes[b, t]]), abs=1e-5)
    torch.testing.assert_close(method.training_step(batch, 0), losses.mean())


def test_the_vq_vae_stays_as_it_is_in_training_mode_too():
    method = make().train()
    before = {name: value.clone() for name, value in method.encoder.codes.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        method.training_step(images(), 0).backward()
        optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in method.encoder.codes.state_dict().items())
    assert all(p.grad is None for p in method.encoder.codes.parameters())
    assert all(p.grad is not None for p in method.encoder.gpt.parameters())


def test_samples_follow_the_models_distribution():
    """Of two codes an image, the frequencies of all pairs."""
    method = make()
    method.encoder.map_size = (1, 2)
    num = 20000
    gpt = method.encoder.eval().gpt
    gpt.transformer.wte.weight.data.mul_(20)  # far from uniform
    drawn = method.encoder.draw(num, seed=0)
    with torch.no_grad():
        first = gpt(torch.tensor([[6]])).logits[0, -1, :6].softmax(0)
        second = torch.stack([gpt(torch.tensor([[6, c]])).logits[0, -1, :6].softmax(0) for c in range(6)])
    expected = first.unsqueeze(1) * second
    found = torch.bincount(drawn[:, 0] * 6 + drawn[:, 1], minlength=36).view(6, 6) / num
    assert expected.max() > 2 / 36
    assert (found - expected).abs().max() < 5 * (0.25 / num) ** 0.5


def test_samples_are_decoded_and_repeatable_and_leave_the_random_state_alone():
    method = make()
    state = torch.get_rng_state()
    first, second, other = (
        method.capabilities()["sample"](4, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())
    assert first.shape == (4, 1, 8, 8)
    assert 0 <= first.min() and first.max() <= 1


def test_features_are_the_mean_of_the_middle_layer():
    method = make(depth=3).eval()
    batch = images()
    codes = method.encoder.codes_of(batch)
    gpt = method.encoder.gpt.transformer
    begin = torch.full((5, 1), 6)
    before = torch.cat([begin, codes[:, :-1]], 1)
    normalised = []
    gpt.h[1].ln_1.register_forward_hook(lambda module, inputs, output: normalised.append(output))
    gpt(input_ids=before)
    expected = normalised[0].mean(1)
    torch.testing.assert_close(method.features(batch), expected)
    x = (batch["image"].float() / 255 - 0.5) / 0.3
    torch.testing.assert_close(method.encoder.encode(x), expected)


def test_the_protocol_averages_nats_over_all_codes():
    data = ArrayImages(num_samples=20, batch_size=8, eval_batch_size=8)
    method = make()
    with torch.no_grad():
        method.encoder.gpt.transformer.ln_f.weight.zero_()
        method.encoder.gpt.transformer.ln_f.bias.zero_()  # all codes equally likely
    found = CodePrediction().run(method.capabilities()["code_losses"], data, device=torch.device("cpu"))
    assert found["codes/nats"] == pytest.approx(math.log(6))
    assert found["codes/perplexity"] == pytest.approx(6)
    assert found["codes/bits_per_dim"] == pytest.approx(16 * math.log2(6) / 64)


def test_refuses_what_has_no_codes_or_another_shape():
    with pytest.raises(ValueError, match=r"a VAE has none. Set encoder.codes=run:DIR"):
        make(codes=VAE(ConvNet(SPEC, widths=(8, 8)), SGD()))
    other = ImageSpec(shape=(1, 16, 16), mean=(0.5,), std=(0.3,))
    with pytest.raises(
        ValueError, match=r"images of \(1, 16, 16\), but its VQVAE was trained on images of \(1, 8, 8\)"
    ):
        CodeGPT(other, codes=tiny_vq_vae())
    with pytest.raises(ValueError, match=r"encoder.embed_dim=16 and encoder.num_heads=3"):
        make(num_heads=3)
    with pytest.raises(ValueError, match="a ConvNet reads none"):
        ImageGPT(ConvNet(SPEC, widths=(8,)), SGD())


def test_codes_come_from_a_run_and_the_run_of_the_prior_can_be_used(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["trainer=smoke", "evaluation=none", "data.batch_size=16"]
    widths = "encoder.widths=[8,8]"
    codes = ["method.num_codes=6", "method.code_dim=4", "method.decoder_dim=8"]
    assert main(["pretrain", "method=vq_vae", widths, *codes, *small, "run_dir=vq"]) == 0
    gpt = ["method=image_gpt", "encoder=code_gpt_mini", "encoder.embed_dim=16"]
    assert main(["pretrain", *gpt, *small, "encoder.codes=run:vq", "run_dir=gpt"]) == 0
    assert main(["sample", "run=gpt", "num_samples=4", "out=samples.png"]) == 0
    assert (tmp_path / "samples.png").is_file()
    capsys.readouterr()
    assert main(["pretrain", *gpt, *small, "encoder.codes=run:nowhere", "run_dir=other"]) == 1
    assert "nowhere is not a run directory" in capsys.readouterr().err


@pytest.mark.parametrize("binarize", ["static", "stochastic"])
def test_codes_of_binarised_images_are_read_too(binarize):
    torch.manual_seed(0)
    vq_vae = VQVAE(ConvNet(SPEC, widths=(4, 8)), SGD(), num_codes=6, code_dim=3, decoder_dim=8, binarize=binarize)
    batch = {**images(), "index": torch.arange(5)}
    assert make(vq_vae).encoder.codes_of(batch).shape == (5, 16)


@pytest.mark.parametrize("binarize", ["stochastic", "static", "none"])
def test_images_without_an_index_have_features(binarize):
    encoder = make(tiny_vq_vae(binarize=binarize)).eval().encoder
    batch = images()
    features = encoder.embed(batch)
    torch.testing.assert_close(features[1:3], encoder.embed({"image": batch["image"][1:3]}))
    first = {"image": batch["image"][:1], "index": torch.tensor([0])}
    torch.testing.assert_close(features[:1], encoder.embed(first))
