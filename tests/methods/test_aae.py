import math
from functools import partial

import pytest
import torch
from ranks.fixed import IMAGES, NUM_SAMPLES, images

from ssl_lab.encoders.mlp import MLPEncoder
from ssl_lab.generators.mlp import MLPGenerator
from ssl_lab.losses.adversarial import hinge
from ssl_lab.methods.aae import AAE
from ssl_lab.optim import SGD

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


def make(**settings):
    torch.manual_seed(0)
    decoder = partial(MLPGenerator, hidden_dims=(6,))
    encoder = MLPEncoder(IMAGES, hidden_dims=(8,))
    return AAE(encoder, SGD(), decoder, latent_dim=3, **{"hidden_dim": 5, **settings}).double()


def step(method):
    """Loss, parts, and the samples of the prior."""
    logged = {}
    method.log_losses = lambda loss, **parts: logged.update(parts) or loss
    torch.manual_seed(3)
    prior = torch.randn(NUM_SAMPLES, 3, dtype=torch.float64)
    torch.manual_seed(3)
    return method.training_step(images(0), 0), logged, prior


def test_step_is_the_loss_by_hand():
    method = make(adversarial_weight=4.0)
    loss, parts, prior = step(method)
    z = method.encode(images(0))
    real, fake = (method.discriminator(codes).squeeze(1).float().tolist() for codes in (prior, z))
    judged = sum(math.log1p(math.exp(-r)) + math.log1p(math.exp(f)) for r, f in zip(real, fake, strict=True))
    hidden = sum(math.log1p(math.exp(-f)) for f in fake)
    x = (images(0)["image"].float() / 255).double()
    expected = method.nll(z, x).mean().item() + (4 * hidden + judged) / NUM_SAMPLES
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert parts["discriminator"].item() == pytest.approx(judged / NUM_SAMPLES, rel=1e-6)


def test_each_network_follows_its_own_loss():
    method = make(adversarial_weight=4.0)
    loss, parts, _ = step(method)
    loss.backward()
    found = {name: p.grad.clone() for name, p in method.named_parameters()}
    method.zero_grad()
    _, parts, _ = step(method)
    of_others = parts["reconstruction"] + 4 * parts["adversarial"]
    own = [name for name in found if name.startswith("discriminator")]
    parameters = dict(method.named_parameters())
    for name, grad in zip(own, torch.autograd.grad(parts["discriminator"], [parameters[n] for n in own]), strict=True):
        torch.testing.assert_close(found[name], grad, msg=name)
    rest = [name for name in found if name not in own]
    for name, grad in zip(rest, torch.autograd.grad(of_others, [parameters[n] for n in rest]), strict=True):
        torch.testing.assert_close(found[name], grad, msg=name)


def test_codes_reach_the_prior():
    """A code of one dimension, far from the prior at first and without an image to tell."""
    torch.manual_seed(0)
    method = AAE(MLPEncoder(IMAGES, hidden_dims=(8,)), SGD(), MLPGenerator, latent_dim=1, hidden_dim=32)
    with torch.no_grad():
        method.to_code.bias.fill_(4.0)
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    start = method.encode(images(0)).mean().item()
    for k in range(150):
        optimizer.zero_grad()
        method.training_step(images(k), 0).backward()
        optimizer.step()
    codes = torch.cat([method.encode(images(k)) for k in range(20)])
    assert abs(start) > 3
    assert abs(codes.mean().item()) < 1


def test_what_is_offered_fits_together():
    method, batch = make(loss=hinge()), images(0)
    fns = method.capabilities()
    z = fns["encode"](batch)
    assert torch.equal(z, fns["features"](batch))
    assert torch.equal(fns["decode"](z), fns["reconstruct"](batch))
    assert "elbo" not in fns
    assert torch.isfinite(step(method)[0])


def test_a_weight_of_nothing_is_refused():
    with pytest.raises(ValueError, match="adversarial_weight > 0"):
        make(adversarial_weight=0.0)
