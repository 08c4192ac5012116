"""A text encoder small enough to learn within a second, data of every task, and a trainer."""

import warnings

import lightning as L
import torch
from arrays import ArrayText

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.optim import AdamW


def encoder(spec, **settings):
    torch.manual_seed(0)
    return TextTransformer(spec, size="tiny", **{"dropout": 0.0, **settings})


def fit(method, data, folder, *, epochs=1, **settings):
    """Train on the labels; the loss of each step."""
    losses = []
    log = method.log_losses

    def remember(loss, **parts):
        losses.append(float(loss))
        return log(loss, **parts)

    method.log_losses = remember
    data.train_split = "train"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer = L.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=epochs,
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **settings,
        )
        trainer.fit(method, datamodule=data)
    return losses


def optim(lr=2e-3):
    return AdamW(lr=lr, weight_decay=0.1)


class LabelledText(ArrayText):
    """Sentences whose class is whether they begin with one of the first tokens; some rows have no label."""

    def columns(self, split):
        columns = super().columns(split)
        ids = columns["input_ids"]
        label = (ids[:, 0] >= 20).long()
        label[::7] = -1
        return {"input_ids": ids, "label": label}
