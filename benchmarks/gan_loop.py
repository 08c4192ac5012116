"""What ``ssl-lab pretrain`` adds to a GAN's step: the command against a bare PyTorch loop of the same DCGAN step.

    python benchmarks/gan_loop.py --json benchmarks/results/gan_loop.json

Both train the same two networks on the same digits with the same losses, optimizers and averaged generator, as periods.py
describes.
"""

from itertools import islice

import periods
import torch
import torch.nn.functional as F
from torch import nn

from ssl_lab.methods.gan import GAN


def bare_loop(overrides, *, num_steps):
    """Start times of the steps of a plain loop."""
    data, method = periods.build(overrides)
    generator, average, latent_dim = method.generator, method.generator_ema, method.generator.latent_dim
    discriminator = nn.Sequential(method.encoder, method.to_logit)
    optimizer_d = torch.optim.AdamW(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999), weight_decay=0, fused=True)
    optimizer_g = torch.optim.AdamW(generator.parameters(), lr=2e-4, betas=(0.5, 0.999), weight_decay=0, fused=True)
    starts = []
    for x in islice(periods.batches(data.columns("pretrain")["image"], data.batch_size), num_steps):
        starts.append(periods.now())
        x = x.float() / 255
        with torch.no_grad():
            fake = torch.sigmoid(generator(torch.randn(len(x), latent_dim)))
        real_logits, fake_logits = discriminator(torch.cat([x, fake])).chunk(2)
        loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        optimizer_d.zero_grad()
        loss.backward()
        optimizer_d.step()

        discriminator.requires_grad_(False)
        loss = F.softplus(-discriminator(torch.sigmoid(generator(torch.randn(len(x), latent_dim))))).mean()
        optimizer_g.zero_grad()
        loss.backward()
        optimizer_g.step()
        discriminator.requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(generator.parameters()), 1 - method.ema_decay)
            for copy, buffer in zip(average.buffers(), generator.buffers(), strict=True):
                copy.copy_(buffer)
    return starts


if __name__ == "__main__":
    periods.main(__doc__, bare_loop, GAN, ["experiment=gan_digits"])
