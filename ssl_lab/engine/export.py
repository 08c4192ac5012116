"""Writing a trained text model as a folder that transformers loads."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Stack

from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.methods.base import Method

MARK = "config.json"
"""What an exported folder holds, and a folder must hold to be overwritten."""


def transformers_model(method: Method) -> PreTrainedModel:
    """The model of transformers in a method: encoder and language-model head, or the encoder of a method without one.

    Raises:
        ValueError: If the method's encoder is no model of transformers.
    """
    capabilities = method.capabilities()
    if "language_model" in capabilities:
        return capabilities["language_model"]()  # type: ignore[no-any-return]
    if isinstance(method.encoder, TextTransformer):
        transformer = method.encoder.transformer
        if isinstance(transformer, T5Stack):  # AutoModel would give it a decoder with random weights
            encoder: Any = T5EncoderModel(deepcopy(method.encoder.config))
            encoder.encoder.load_state_dict(transformer.state_dict())
            return encoder.to(method.device).eval()  # type: ignore[no-any-return]
        return transformer.eval()  # type: ignore[no-any-return]
    raise ValueError(
        f"The encoder of this {type(method).__name__} run is a {type(method.encoder).__name__}, which transformers has no "
        "class for. Runs of text methods can be exported; for other encoders, ssl-lab embed writes features."
    )


def auto_class(model: PreTrainedModel) -> str:
    """Name of the class of transformers whose ``from_pretrained`` loads the model as what it is."""
    of_suffix = {
        "ForMaskedLM": "AutoModelForMaskedLM",
        "LMHeadModel": "AutoModelForCausalLM",
        "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
        "T5EncoderModel": "T5EncoderModel",  # AutoModel loads T5Model
    }
    return next((name for end, name in of_suffix.items() if type(model).__name__.endswith(end)), "AutoModel")


def write_for_transformers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, max_length: int, card: str, folder: Path
) -> None:
    """Weights (safetensors), configuration, tokenizer and model card in a folder that exists.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        max_length: Tokens of the longest texts that were trained on; ``truncation=True`` cuts longer ones there.
        card: Text of the folder's README.md.
        folder: Where to write.
    """
    transformers.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")


def write_folder(out: Path, write: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Let ``write`` fill a new folder beside ``out``, then rename it: nobody ever sees a part of it.

    Args:
        out: The folder; may exist if it is empty.
        write: Fills the folder that it is given.
        overwrite: Replace an earlier export.

    Raises:
        ValueError: If ``out`` exists and holds something, unless it is an earlier export and ``overwrite`` is set.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"The export was to be written to {out}, which is a file. Give out= a new folder.")
    if out.is_dir() and any(out.iterdir()):
        earlier = (out / MARK).is_file()
        if not earlier:
            raise ValueError(f"{out} is not empty and no earlier export. Give out= a new folder.")
        if not overwrite:
            raise ValueError(f"{out} holds a model already. Give out= a new folder, or overwrite=true to replace it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside:
        new, old = Path(beside) / "new", Path(beside) / "old"
        new.mkdir()
        write(new)
        if out.is_dir():
            out.rename(old)
        new.rename(out)
        if old.is_dir():
            shutil.rmtree(old)
