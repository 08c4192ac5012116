import copy
import os
import signal
import warnings
from dataclasses import replace
from functools import partial

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from arrays import ArrayImages
from torch import nn
from torch.utils.data import DataLoader

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.dcgan import DCGANEncoder
from ssl_lab.encoders.sngan import SNGANEncoder
from ssl_lab.engine.checkpoints.signals import InterruptedRunError
from ssl_lab.engine.pretrain import pretrain
from ssl_lab.generators.base import Generator
from ssl_lab.generators.resnet import ResNetGenerator
from ssl_lab.heads import has_batch_statistics
from ssl_lab.losses.adversarial import AdversarialLoss, hinge, least_squares, non_saturating, wasserstein
from ssl_lab.methods.gan import GAN
from ssl_lab.optim import SGD, AdamW
from ssl_lab.pretext.diff_augment import DiffAugment

DATA = ArrayImages()
RESNET = partial(ResNetGenerator, widths=(6, 6))
ADAM = AdamW(lr=2e-3, betas=(0.5, 0.9), weight_decay=0.0, warmup_fraction=0.0, decay="linear")


def gan(encoder=None, optim=ADAM, *args, generator=RESNET, **settings):
    torch.manual_seed(0)
    encoder = encoder or SNGANEncoder(DATA.spec, widths=(6, 6))
    return GAN(encoder, optim, *args, generator=generator, **{"latent_dim": 5, **settings})


def trainer(folder, **settings):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        return L.Trainer(
            accelerator="cpu",
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **{"max_epochs": 1, **settings},
        )


def fit(method, folder, data=DATA, **settings):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer(folder, **settings).fit(method, datamodule=data)
    return method


def slow_losses(name, real, fake):
    """The discriminator's loss, written once more."""
    if name == "wasserstein":
        return fake.mean() - real.mean()
    if name == "hinge":
        return torch.clamp(1 - real, min=0).mean() + torch.clamp(1 + fake, min=0).mean()
    if name == "least_squares":
        return ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2
    return -F.logsigmoid(real).mean() - F.logsigmoid(-fake).mean()


def slow_generator_loss(name, fake):
    if name in ("wasserstein", "hinge"):
        return -fake.mean()
    return ((fake - 1) ** 2).mean() / 2 if name == "least_squares" else -F.logsigmoid(fake).mean()


def slow_slopes(discriminate, images, labels):
    """Of one image after the other, in pixels from -1 to 1."""
    slopes = []
    for k in range(len(images)):
        y = (2 * images[k : k + 1] - 1).detach().requires_grad_()
        logit = discriminate((y + 1) / 2, labels[k : k + 1])
        slopes.append(torch.autograd.grad(logit.squeeze(), y, create_graph=True)[0].flatten())
    return torch.stack(slopes)


def slow_training(method, name, batches, noises, shares, *, num_critic_steps, gradient_penalty, r1, interval):
    """A loop as in the papers, on copies of the method's networks; final weights, losses, averaged weights."""
    encoder, generator, last, classes = map(
        copy.deepcopy, (method.encoder, method.generator, method.to_logit, method.class_vectors)
    )
    average = {key: p.detach().clone() for key, p in generator.named_parameters()}
    discriminator_parameters = [*encoder.parameters(), *last.parameters(), *classes.parameters()]
    optimizers = [
        torch.optim.Adam(parameters, lr=2e-3, betas=(0.5, 0.9))
        for parameters in (discriminator_parameters, generator.parameters())
    ]

    def discriminate(images, labels):
        h = encoder(images)
        return last(h)[:, 0] + torch.einsum("bd,bd->b", classes.weight[labels], h)

    totals = (len(batches), len(batches) // num_critic_steps)
    num_generator_steps, logged, noises, shares = 0, [], iter(noises), iter(shares)
    for step, (x, y) in enumerate(batches):
        for optimizer, done, total in zip(optimizers, (step, num_generator_steps), totals, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * (1 - done / total)
        fake = torch.sigmoid(generator(next(noises), y)).detach()
        loss = slow_losses(name, discriminate(x, y), discriminate(fake, y))
        u = next(shares).view(-1, 1, 1, 1)
        between = slow_slopes(discriminate, u * x + (1 - u) * fake, y)
        loss = loss + gradient_penalty * ((between.square().sum(1).sqrt() - 1) ** 2).mean()
        if step % interval == 0:
            loss = loss + interval * r1 / 2 * slow_slopes(discriminate, x, y).square().sum(1).mean()
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        if step % num_critic_steps == num_critic_steps - 1:
            generator_loss = slow_generator_loss(name, discriminate(torch.sigmoid(generator(next(noises), y)), y))
            optimizers[1].zero_grad()
            generator_loss.backward()
            optimizers[1].step()
            num_generator_steps += 1
            decay = min(0.5, (1 + num_generator_steps) / (10 + num_generator_steps))
            for key, p in generator.named_parameters():
                average[key] = decay * average[key] + (1 - decay) * p.detach()
            loss = loss + generator_loss
        logged.append(loss.detach())
    return encoder, generator, last, classes, average, logged


@pytest.mark.parametrize(
    ("name", "num_critic_steps"),
    [("wasserstein", 3), ("non_saturating", 1), ("hinge", 2), ("least_squares", 1)],
)
def test_training_equals_a_plain_loop(name, num_critic_steps, tmp_path):
    """Six batches: losses, both penalties, classes, turns, both schedules and the average, in fp64."""
    losses = {
        "wasserstein": wasserstein,
        "non_saturating": non_saturating,
        "hinge": hinge,
        "least_squares": least_squares,
    }
    settings = {"num_critic_steps": num_critic_steps, "gradient_penalty": 10.0, "r1": 0.3}
    encoder = SNGANEncoder(DATA.spec, widths=(6, 6), spectral_norm=False)
    method = gan(encoder, loss=losses[name](), conditional=True, ema_decay=0.5, r1_interval=4, **settings).double()
    noises = [torch.randn(16, 5, dtype=torch.float64) for _ in range(12)]
    shares = [torch.rand(16, dtype=torch.float64) for _ in range(6)]
    given, shared = iter(noises), iter(shares)
    method.latents, method.shares = lambda num_samples: next(given), lambda num_samples: next(shared)
    data = ArrayImages(num_samples=96)
    rows = data.columns("train")
    batches = [
        {"image": rows["image"][k : k + 16], "label": rows["label"][k : k + 16].roll(k)} for k in range(0, 96, 16)
    ]
    pairs = [(batch["image"].double() / 255, batch["label"]) for batch in batches]
    slow = slow_training(copy.deepcopy(method), name, pairs, noises, shares, interval=4, **settings)
    logged = []
    log_losses = method.log_losses
    method.log_losses = lambda loss, **parts: logged.append(log_losses(loss, **parts).detach())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer(tmp_path, precision="64-true").fit(method, train_dataloaders=DataLoader(batches, batch_size=None))
    torch.testing.assert_close(torch.stack(logged), torch.stack(slow[5]), rtol=1e-6, atol=1e-6)
    ours = method.encoder, method.generator, method.to_logit, method.class_vectors
    for network, expected in zip(ours, slow, strict=False):
        for (key, p), q in zip(network.named_parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6, msg=key)
    for key, p in method.generator_ema.named_parameters():
        torch.testing.assert_close(p, slow[4][key], rtol=1e-6, atol=1e-6, msg=key)
    for key, buffer in method.generator_ema.named_buffers():
        torch.testing.assert_close(buffer, dict(slow[1].named_buffers())[key], rtol=1e-6, atol=1e-6, msg=key)


def test_the_generator_steps_on_every_nth_batch_of_all_epochs(tmp_path):
    method = gan(num_critic_steps=3)  # of four batches an epoch: the counts go on over its end
    before = [p.clone() for p in method.generator.parameters()]
    moved = []
    log_losses = method.log_losses

    def look(loss, **parts):
        moved.append(any(not torch.equal(p, q) for p, q in zip(before, method.generator.parameters(), strict=True)))
        before[:] = [p.clone() for p in method.generator.parameters()]
        return log_losses(loss, **parts)

    method.log_losses = look
    fit(method, tmp_path, max_epochs=3)
    assert moved == [False, False, True] * 4
    discriminator, generator = (schedule.last_epoch for schedule in method.lr_schedulers())
    assert (discriminator, generator) == (12, 4)
    assert all(group["lr"] == 0 for optimizer in method.optimizers() for group in optimizer.param_groups)


@pytest.mark.parametrize(
    "encoder",
    [partial(ConvNet, widths=(4, 8)), partial(DCGANEncoder, width=4, spectral_norm=False)],
)
@pytest.mark.parametrize("conditional", [False, True])
def test_a_fake_batch_has_the_same_logits_in_both_steps(encoder, conditional, tmp_path):
    """In train mode: batch statistics of the discriminator's step are those of the generator's."""
    still = AdamW(lr=1e-12, warmup_fraction=0.0, weight_decay=0.0)
    method = gan(encoder(DATA.spec), still, conditional=conditional)
    z = torch.randn(16, 5)
    method.latents = lambda num_samples: z
    losses, seen = non_saturating(), {}

    def of_discriminator(real, fake):
        seen["discriminator"], seen["real"] = fake.detach(), real.detach()
        return losses.discriminator(real, fake)

    def of_generator(fake):
        seen["generator"] = fake.detach()
        return losses.generator(fake)

    method.loss = AdversarialLoss(of_discriminator, of_generator)
    fit(method, tmp_path, max_steps=1)
    assert has_batch_statistics(method.encoder)
    assert seen["real"].shape == seen["discriminator"].shape == (16,)
    torch.testing.assert_close(seen["generator"], seen["discriminator"], rtol=1e-4, atol=1e-5)


def stop(method, after):
    """End a run by the signal that a cluster sends, after so many batches."""
    log_losses, done = method.log_losses, []

    def count(loss, **parts):
        done.append(loss)
        if len(done) == after:
            os.kill(os.getpid(), signal.SIGTERM)
        return log_losses(loss, **parts)

    method.log_losses = count
    return method


def resumable():
    """Everything that has a state: spectral norm, averages, counters, penalties now and then, random augmentation."""
    settings = {"num_critic_steps": 3, "gradient_penalty": 1.0, "r1": 0.5, "r1_interval": 4, "conditional": True}
    return gan(loss=hinge(), augment=DiffAugment(), generator_optim=SGD(lr=0.01, momentum=0.9), **settings)


def run(folder, method, **settings):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        L.seed_everything(3, verbose=False)
        pretrain(method, ArrayImages(), trainer(folder, max_epochs=3), **settings)
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


@pytest.mark.parametrize("stop_after", [5, 6])  # between two steps of the generator, and after one
def test_a_killed_and_resumed_run_ends_with_the_same_bits(stop_after, tmp_path):
    whole = run(tmp_path / "whole", resumable())
    with pytest.raises(InterruptedRunError):
        run(tmp_path / "stopped", stop(resumable(), stop_after))
    torch.manual_seed(99)
    torch.rand(7)
    resumed = run(tmp_path / "stopped", resumable(), ckpt_path=tmp_path / "stopped/checkpoints/last.ckpt")
    assert resumed["global_step"] == whole["global_step"] == 12
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_same_bits(resumed[part], whole[part])


def assert_same_bits(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same_bits(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same_bits(x, y)
    else:
        assert a == b


class Watch(nn.Module):
    """Halves contrast and counts what passes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images.detach().clone())
        return 0.25 + 0.5 * images


def test_real_and_generated_images_are_augmented_alike(tmp_path):
    method = gan(augment=Watch(), gradient_penalty=1.0)
    shown = []
    method.encoder.register_forward_pre_hook(lambda module, args: shown.append(args[0].detach()))
    fit(method, tmp_path, limit_train_batches=1)
    assert [len(images) for images in method.augment.seen] == [32, 16]
    assert [len(images) for images in shown] == [32, 16, 16]
    real = method.augment.seen[0][:16]
    assert any(torch.equal(real[0], image.float() / 255) for image in DATA.columns("train")["image"])
    assert min(x.min() for x in shown) >= 0.25 and max(x.max() for x in shown) <= 0.75


def test_classes_are_given_to_both_networks_and_can_be_asked_for(tmp_path):
    """Generated images of a class look like it: bright above or below."""
    optim = AdamW(lr=5e-3, betas=(0.0, 0.9), weight_decay=0.0)
    encoder, generator = SNGANEncoder(DATA.spec, widths=(16, 16)), partial(ResNetGenerator, widths=(16, 16))
    method = gan(encoder, optim, loss=hinge(), generator=generator, conditional=True, ema_decay=0.9)
    assert method.uses_labels
    fit(method, tmp_path, max_epochs=60)
    generator = torch.Generator().manual_seed(0)
    for label, brighter in ((0, 1), (1, -1)):
        images = method.capabilities()["sample"](64, generator, label=torch.full((64,), label))
        difference = images[:, :, :4].mean((1, 2, 3)) - images[:, :, 4:].mean((1, 2, 3))
        assert (brighter * difference > 0.2).float().mean() > 0.9


def test_labels_decide_only_where_they_are_wanted(tmp_path):
    class Relabelled(ArrayImages):
        def columns(self, split):
            return {**super().columns(split), "label": torch.zeros(self.num_samples, dtype=torch.int64)}

    for conditional in (False, True):
        weights = []
        for data in (ArrayImages(), Relabelled()):
            method = gan(conditional=conditional)
            L.seed_everything(1, verbose=False)
            weights.append(fit(method, tmp_path, data, limit_train_batches=2).generator.state_dict())
        same = all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
        assert same != conditional


def test_projection_is_a_product_with_the_class_vector_and_follows_the_trunks_normalisation():
    method = gan(conditional=True).eval()
    x, label = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 1, 0])
    h = method.encoder.embed({"image": x})
    vectors = method.class_vectors.weight
    expected = (
        h @ method.to_logit.weight[0] + method.to_logit.bias + torch.stack([h[k] @ vectors[label[k]] for k in range(4)])
    )
    torch.testing.assert_close(method.discriminate(x, label), expected)
    assert torch.linalg.matrix_norm(vectors, 2).item() == pytest.approx(1, abs=0.01)
    assert method.to_logit.weight.norm().item() == pytest.approx(1, abs=0.01)
    plain = gan(SNGANEncoder(DATA.spec, widths=(6, 6), spectral_norm=False))
    assert type(plain.to_logit) is nn.Linear


def test_truncated_latents_are_normal_between_their_bounds():
    method = gan()
    z = method.latents(4000, torch.Generator().manual_seed(0), truncation=0.7)
    assert z.abs().max() <= 0.7
    normal = torch.randn(400000, generator=torch.Generator().manual_seed(1))
    kept = normal[normal.abs() < 0.7]
    for quantile in (0.05, 0.3, 0.5, 0.8):
        assert torch.quantile(z.flatten(), quantile).item() == pytest.approx(
            torch.quantile(kept[:100000], quantile).item(), abs=0.01
        )
    wide = method.latents(4000, torch.Generator().manual_seed(0), truncation=9.0)
    assert torch.isfinite(wide).all()
    assert wide.std().item() == pytest.approx(1, abs=0.02)


def test_samples_are_images_of_the_average_and_decode_repeats_them():
    method = gan(conditional=True)
    capabilities = method.capabilities()
    z = method.latents(3, torch.Generator().manual_seed(0))
    label = torch.tensor([1, 0, 1])
    images = capabilities["sample"](3, torch.Generator().manual_seed(0), label=label)
    assert torch.equal(images, capabilities["decode"](z, label))
    assert not images.requires_grad
    assert torch.equal(capabilities["decode"](z), capabilities["decode"](z, torch.zeros(3, dtype=torch.int64)))
    nn.init.zeros_(method.generator_ema.to_image[2].weight)
    nn.init.zeros_(method.generator_ema.to_image[2].bias)
    assert (capabilities["sample"](3) == 0.5).all()


def test_bf16_with_both_penalties(tmp_path):
    method = fit(gan(gradient_penalty=10.0, r1=1.0, r1_interval=1), tmp_path, precision="bf16-mixed")
    assert torch.isfinite(method.last_loss)
    assert all(torch.isfinite(p).all() for p in method.parameters())


def test_refuses_what_does_not_fit(tmp_path):
    normalised = DCGANEncoder(DATA.spec, width=4, spectral_norm=False)
    with pytest.raises(ValueError, match="batch normalisation in DCGANEncoder ties images"):
        gan(normalised, r1=1.0)
    with pytest.raises(ValueError, match="num_critic_steps=0"):
        gan(num_critic_steps=0)

    class NoClasses(Generator):
        def __init__(self, spec, *, latent_dim):
            super().__init__(spec, latent_dim=latent_dim)

        def forward(self, z):
            return z

    with pytest.raises(ValueError, match="takes no num_classes"):
        gan(generator=NoClasses, conditional=True)
    unlabelled = replace(DATA.spec, targets={})
    with pytest.raises(ValueError, match="the data has no labels"):
        gan(SNGANEncoder(unlabelled, widths=(6, 6)), conditional=True)
    with pytest.raises(ValueError, match="batches of this data hold only"):
        fit(gan(conditional=True), tmp_path, ArrayImages(labels=False))

    class HalfLabelled(ArrayImages):
        def columns(self, split):
            columns = super().columns(split)
            return {**columns, "label": columns["label"] - 1}

    with pytest.raises(ValueError, match="some have none"):
        fit(gan(conditional=True), tmp_path, HalfLabelled())
    with pytest.raises(ValueError, match="truncation=0"):
        gan().sample(2, truncation=0)
    with pytest.raises(ValueError, match="trained without classes"):
        gan().sample(2, label=torch.tensor([0, 1]))
    compiled = gan(r1=1.0)
    compiled.encoder.compile()
    with pytest.raises(ValueError, match="compile=false"):
        fit(compiled, tmp_path)
