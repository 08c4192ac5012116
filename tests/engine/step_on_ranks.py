"""Run by torchrun: one training step of several methods on W ranks, the loss and averaged gradients saved by rank 0."""

import os
import sys
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ssl_lab import distributed
from ssl_lab.distributed import synchronise_batch_norm
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.methods.mlm import MLM
from ssl_lab.methods.simclr import SimCLR
from ssl_lab.methods.vae import VAE
from ssl_lab.optim import AdamW
from ssl_lab.types import DataSpec

GLOBAL_BATCH = 16


class FixedViews(nn.Module):
    """Two views that depend on the image alone, so that any number of ranks sees the same ones."""

    def forward(self, images):
        x = images.float() / 255
        return torch.stack([x, x.flip(3) * 0.7 + 0.1])


class FixedMasking(nn.Module):
    """Masks that depend on the ids alone and fall unevenly over the rows."""

    def forward(self, input_ids, attention_mask, spec):
        chosen = (input_ids % 7 == 0) & (input_ids >= 5) & (attention_mask == 1)
        labels = torch.where(chosen, input_ids, -100)
        return torch.where(chosen, spec.mask_id, input_ids), labels


def make(name):
    torch.manual_seed(0)
    image = DataSpec(modality="image", shape=(1, 8, 8), mean=(0.5,), std=(0.3,))
    if name == "simclr":
        return SimCLR(ConvNet(image, widths=(8, 16)), AdamW(), FixedViews(), hidden_dim=16, projection_dim=8)
    if name == "vae":
        vae = VAE(ConvNet(image, widths=(8, 16)), AdamW(), latent_dim=4, decoder_width=8, min_kl=0.02)
        vae.current_beta = lambda: 1.0
        return vae
    text = DataSpec(modality="text", shape=(12,), vocab_size=64, pad_id=0, mask_id=4, special_ids=(0, 1, 2, 3, 4))
    return MLM(TextTransformer(text, size="tiny", dropout=0.0), AdamW(), FixedMasking())


def joined_batch(name):
    generator = torch.Generator().manual_seed(1)
    index = torch.arange(GLOBAL_BATCH)
    if name in ("simclr", "vae"):
        return {
            "image": torch.randint(0, 256, (GLOBAL_BATCH, 1, 8, 8), dtype=torch.uint8, generator=generator),
            "index": index,
        }
    ids = torch.randint(5, 64, (GLOBAL_BATCH, 12), generator=generator)
    ids[: GLOBAL_BATCH // 2, 6:] = 0  # half of the rows are short, so ranks have unequal numbers of masked tokens
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "index": index}


class Step(nn.Module):
    def __init__(self, method):
        super().__init__()
        self.method = method

    def forward(self, batch):
        return self.method.training_step(batch, 0)


def step(name, out):
    rank, world = distributed.rank(), distributed.world_size()
    method = synchronise_batch_norm(make(name)).double()
    model = DistributedDataParallel(Step(method)) if world > 1 else Step(method)
    share = GLOBAL_BATCH // world
    batch = {key: value[rank * share : (rank + 1) * share] for key, value in joined_batch(name).items()}
    if name == "vae":  # every rank takes its rows of one joined noise
        noise = torch.randn(GLOBAL_BATCH, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        torch.randn_like = lambda x: noise[rank * share : (rank + 1) * share]
    loss = model(batch)
    loss.backward()
    total = distributed.reduce_sum(loss) / world
    if rank == 0:
        gradients = {key: p.grad for key, p in method.named_parameters() if p.grad is not None}
        buffers = {key: value.clone() for key, value in method.named_buffers()}
        torch.save({"loss": total, "gradients": gradients, "buffers": buffers}, out)


def main(folder):
    warnings.filterwarnings("ignore", message="You are trying to `self.log")
    dist.init_process_group("gloo")
    for name in ("simclr", "mlm", "vae"):
        step(name, f"{folder}/{name}_{distributed.world_size()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    main(*sys.argv[1:])
