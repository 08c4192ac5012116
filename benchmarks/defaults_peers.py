"""What users would take instead of a default command, each in a process of its own that stops at a budget of CPU seconds.

    python benchmarks/defaults_peers.py lightly --data DIR --seconds 60 --seed 0 --out features.npz --encoder RUN
    python benchmarks/defaults_peers.py pythae --data DIR --seconds 60 --seed 0 --out samples.npy --peers PEERS
    python benchmarks/defaults_peers.py transformers --data DIR --seconds 60 --seed 0 --out accuracy.json

Imports count like everything else of the process. ``lightly`` is the loop of its documentation (SimCLRTransform, SGD at 0.06,
batches of 256, projection head 512-128) around the same small network that ssl_lab has chosen: its own ResNet would take no
hundred steps. Grey images are read as RGB, as its documentation does. ``pythae`` has all defaults: networks, latent width,
loss, batch and rate. ``transformers`` is a loop of BertForMaskedLM, four layers of 256, on a WordPiece vocabulary of its own,
then BertForSequenceClassification for three epochs at 5e-4: its default of 5e-5 leaves a network of this size untrained.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch


def read_images(folder, split):
    """Images (N, H, W[, 3]) and labels of ``SPLIT/CLASS/*.png``, sorted by number."""
    from PIL import Image

    files = sorted((folder / split).glob("*/*.png"), key=lambda path: path.stem)
    return np.stack([np.array(Image.open(file)) for file in files]), np.array([int(file.parent.name) for file in files])


def lightly(args):
    """Features of both splits after lightly's loop."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from lightly.transforms.utils import IMAGENET_NORMALIZE
    from PIL import Image

    images = {split: read_images(args.data, split)[0] for split in ("train", "test")}
    images = {split: x if x.ndim == 4 else np.repeat(x[..., None], 3, 3) for split, x in images.items()}
    side = images["train"].shape[1]
    transform = SimCLRTransform(input_size=side)
    network = same_network(args.encoder, (3, side, side))
    model = torch.nn.Sequential(network, SimCLRProjectionHead(network.embed_dim, 512, 128))
    optimizer, criterion = torch.optim.SGD(model.parameters(), lr=0.06), NTXentLoss()
    steps = 0
    while time.process_time() < args.seconds:
        for rows in torch.randperm(len(images["train"])).split(256):
            if len(rows) < 256 or time.process_time() >= args.seconds:
                break
            views = [transform(Image.fromarray(images["train"][row])) for row in rows]
            z0, z1 = (model(torch.stack([view[k] for view in views])) for k in (0, 1))
            criterion(z0, z1).backward()
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
    mean, std = (torch.tensor(IMAGENET_NORMALIZE[name]).view(3, 1, 1) for name in ("mean", "std"))
    model.eval()
    with torch.no_grad():
        found = {
            split: torch.cat([network((part / 255 - mean) / std) for part in as_batches(x)]).numpy()
            for split, x in images.items()
        }
    np.savez(args.out, **found, steps=steps)


def as_batches(images):
    return (torch.from_numpy(part).permute(0, 3, 1, 2).float() for part in np.array_split(images, 20))


def same_network(run, shape):
    """The network of a run for images of this shape, without normalisation of its own."""
    import ssl_lab.cli.using  # noqa: F401
    from ssl_lab.cli.build import build_encoder, read_setup
    from ssl_lab.modalities.image import ImageSpec

    settings, _ = read_setup(run)
    spec = ImageSpec(shape=shape, mean=(0.0,) * shape[0], std=(1.0,) * shape[0])
    return build_encoder(settings.encoder, spec)


def pythae(args):
    """2,000 samples of pythae's VAE after its trainer."""
    sys.path.append(str(args.peers))
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    logging.disable(logging.INFO)
    images = read_images(args.data, "train")[0]
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    pixels = torch.from_numpy(images).float() / 255

    class OutOfTimeError(Exception):
        pass

    class Clock(TrainingCallback):
        steps = 0

        def on_train_step_end(self, *_, **__):
            self.steps += 1
            if time.process_time() >= args.seconds:
                raise OutOfTimeError

    clock = Clock()
    model = VAE(VAEConfig(input_dim=tuple(pixels.shape[1:]), latent_dim=10))
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(output_dir=folder, num_epochs=100_000, no_cuda=True, seed=args.seed)
        data = BaseDataset(pixels, torch.ones(len(pixels)))
        trainer = BaseTrainer(model, train_dataset=data, training_config=settings, callbacks=[clock])
        trainer.save_model = trainer.save_checkpoint = lambda *_, **__: None  # it copies the network each epoch
        try:
            trainer.train()
        except OutOfTimeError:
            model = trainer.model.eval()
    with torch.no_grad():
        samples = model.decoder(torch.randn(2000, 10)).reconstruction
    np.save(args.out, (samples.clamp(0, 1) * 255).round().byte().numpy())


def transformers(args):
    """Accuracy of a classifier on the test split after a loop of masked language modelling."""
    import csv

    from tokenizers import BertWordPieceTokenizer
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertForSequenceClassification,
        BertTokenizerFast,
        DataCollatorForLanguageModeling,
    )

    def read(split):
        with (args.data / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [row["text"] for row in rows], [row["label"] for row in rows]

    (train, labels), (test, truth) = read("train"), read("test")
    names = sorted(set(labels))
    with tempfile.TemporaryDirectory() as folder:
        trained = BertWordPieceTokenizer()
        trained.train_from_iterator(train, vocab_size=8192, show_progress=False)
        trained.save_model(folder)
        tokenizer = BertTokenizerFast.from_pretrained(folder)
    rows = tokenizer(train, truncation=True, max_length=128)["input_ids"]
    size = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    config = BertConfig(vocab_size=len(tokenizer), num_labels=len(names), **size)

    def padded(which, source):
        return tokenizer.pad([{"input_ids": source[k]} for k in which], return_tensors="pt")

    model = BertForMaskedLM(config)
    collate = DataCollatorForLanguageModeling(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    steps = 0
    while time.process_time() < args.seconds:
        for which in torch.randperm(len(rows)).split(64):
            if time.process_time() >= args.seconds:
                break
            batch = collate([{"input_ids": rows[k]} for k in which])
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        classifier = BertForSequenceClassification.from_pretrained(folder, num_labels=len(names))
    targets = torch.tensor([names.index(label) for label in labels])
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=5e-4)
    total, done = 3 * (len(rows) // 32), 0
    for _ in range(3):
        for which in torch.randperm(len(rows)).split(32):
            if len(which) < 32:
                continue
            warm = min(1.0, (done + 1) / (0.1 * total))
            optimizer.param_groups[0]["lr"] = 5e-4 * min(warm, 1 - done / total)
            classifier(**padded(which, rows), labels=targets[which]).loss.backward()
            torch.nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
    classifier.eval()
    of_test = tokenizer(test, truncation=True, max_length=128)["input_ids"]
    with torch.no_grad():
        found = torch.cat(
            [classifier(**padded(which, of_test)).logits.argmax(1) for which in torch.arange(len(test)).split(128)]
        )
    hits = [names[guess] == label for guess, label in zip(found, truth, strict=True)]
    args.out.write_text(json.dumps({"accuracy": float(np.mean(hits)), "steps": steps}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=("lightly", "pythae", "transformers"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, help="run whose network is taken")
    parser.add_argument("--peers", type=Path, help="folder into which pythae was installed")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)
    {"lightly": lightly, "pythae": pythae, "transformers": transformers}[args.peer](args)


if __name__ == "__main__":
    main()
