"""What ``ssl-lab pretrain`` adds to a training step: the command against a bare PyTorch loop of the same SimCLR step.

    python benchmarks/overhead.py --json benchmarks/results/overhead.json

Both train the same network on the same digits with the same views, loss and optimizer, as periods.py describes.
"""

from itertools import islice

import periods

from ssl_lab.losses.contrastive import nt_xent
from ssl_lab.methods.simclr import SimCLR


def bare_loop(overrides, *, num_steps):
    """Start times of the steps of a plain loop."""
    data, method = periods.build(overrides)
    optimizer, schedule = method.optim.build(method, total_steps=num_steps)
    starts = []
    for x in islice(periods.batches(data.columns("pretrain")["image"], data.batch_size), num_steps):
        starts.append(periods.now())
        z_a, z_b = method.projector(method.encoder.embed(method.views({"image": x}))).chunk(2)
        loss = nt_xent(z_a, z_b, temperature=method.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return starts


if __name__ == "__main__":
    periods.main(__doc__, bare_loop, SimCLR, ["experiment=simclr_digits", "data.batch_size=128"])
