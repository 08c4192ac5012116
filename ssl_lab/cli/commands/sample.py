"""``ssl-lab sample``: generate images or texts with a finished run, or fill masks."""

from __future__ import annotations

import inspect
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.progress import Progress
from torch import Tensor

from ssl_lab.cli import build as config
from ssl_lab.cli.drawing import COLUMNS, output_of, save_picture
from ssl_lab.data.text.tokenizer import load_tokenizer
from ssl_lab.devices import find_device
from ssl_lab.engine.checkpoints.checkpoint import checkpoint_identity
from ssl_lab.evaluation.protocol import check_finite
from ssl_lab.generate.complete import complete
from ssl_lab.generate.fill_masks import fill_masks
from ssl_lab.generate.sample_files import SampleFiles
from ssl_lab.methods.base import Method
from ssl_lab.modalities.text import TextSpec
from ssl_lab.outputs import clear
from ssl_lab.runs.directory import find_checkpoint
from ssl_lab.types import ImageGrid, Spec

_SETTINGS = {
    "images": {"num_samples", "seed", "out", "format", "label", "truncation"},
    "masks": {"text", "top_k"},
    "text": {"prompt", "num_samples", "seed", "max_new_tokens", "temperature", "top_k", "top_p"},
}
"""Settings of ``ssl-lab sample`` that have an effect, by the kind of output."""


def run(cfg: DictConfig, args: list[str]) -> int:
    """``ssl-lab sample``: images, the masks of a text filled, or continued prompts."""
    OmegaConf.set_readonly(cfg, True)
    run_dir = Path(cfg.run)
    given = {str(name) for name, value in cfg.items() if value is not None} - {"run"}
    kind = "masks" if "text" in given else "text" if "prompt" in given else "images"
    useless = given - _SETTINGS[kind]
    if useless:
        raise ValueError(
            f"To sample {kind}, {', '.join(sorted(useless))} has no meaning; known are {', '.join(sorted(_SETTINGS[kind]))}."
        )
    if kind != "images":
        clear(runs=[run_dir])
    _, spec, method = config.load_run(run_dir)
    method.to(find_device())
    if kind == "masks":
        return _fill_masks(method, run_dir, cfg.text, top_k=5 if cfg.top_k is None else cfg.top_k)
    if kind == "text":
        settings = {str(name): value for name, value in cfg.items() if name in given - {"prompt"}}
        return _complete(method, run_dir, cfg.prompt, settings)
    if "sample" not in method.capabilities():
        raise ValueError(f"{type(method).__name__} draws no images. {_remedy(method)}")
    return draw_samples(method, spec, run_dir, cfg)


def _remedy(method: Method) -> str:
    """Suggest how to sample from a run that generates no images, if it can be sampled at all."""
    if "predict_masked" in method.capabilities():
        return 'It fills masks: give text="...", or run= a VAE or GAN run.'
    if "generate" in method.capabilities():
        return 'It continues a text: give prompt="...", or run= a VAE or GAN run.'
    return "Give run= a VAE or GAN run."


def _fill_masks(method: Method, run_dir: Path, text: str, *, top_k: int) -> int:
    capabilities = method.capabilities()
    if "predict_masked" not in capabilities:
        raise ValueError(
            f"text= asks for masks to be filled, but {type(method).__name__} does not predict masked tokens. Give run= a "
            "run of method=mlm."
        )
    spec = TextSpec.of(method.encoder.spec, "Filling masks")
    tokenizer = load_tokenizer(str(run_dir / "tokenizer"))
    filled = fill_masks(
        capabilities["predict_masked"],
        tokenizer,
        spec,
        text,
        top_k=top_k,
        device=torch.device(method.device),
    )
    for number, guesses in enumerate(filled.guesses, start=1):
        print(f"mask {number}:  " + "   ".join(f'"{guess.token}" {100 * guess.probability:.1f} %' for guess in guesses))
    print(filled.completed)
    return 0


def _complete(method: Method, run_dir: Path, prompt: str, settings: dict[str, Any]) -> int:
    capabilities = method.capabilities()
    if "generate" not in capabilities:
        raise ValueError(
            f"prompt= asks for texts, but {type(method).__name__} does not generate any. Give run= a run of "
            "method=causal_lm."
        )
    spec = TextSpec.of(method.encoder.spec, "Completing a text")
    tokenizer = load_tokenizer(str(run_dir / "tokenizer"), framing="causal")
    texts = complete(
        capabilities["generate"],
        tokenizer,
        spec,
        prompt,
        device=torch.device(method.device),
        **settings,
    )
    print("\n\n".join(texts))
    return 0


def draw_samples(method: Method, spec: Spec, run_dir: Path, cfg: DictConfig) -> int:
    """A grid of samples in a PNG file, or a folder of many."""
    out = output_of(cfg, run_dir, "samples.png")
    seed = cfg.seed or 0
    if cfg.num_samples is not None and cfg.num_samples < 1:
        raise ValueError(f"Cannot draw num_samples={cfg.num_samples}. Choose 1 or more.")
    chosen = {name: cfg[name] for name in ("label", "truncation") if cfg[name] is not None}
    sample = partial(_sample, method, _options(method, spec, chosen))
    if out.suffix == ".png":
        if cfg.format is not None:
            raise ValueError(
                f"format={cfg.format} is that of the files in a folder. Give out= a folder, not {out.name}."
            )
        num_samples = 80 if cfg.num_samples is None else cfg.num_samples
        images = sample(num_samples, torch.Generator(method.device).manual_seed(seed))
        columns = min(COLUMNS, num_samples)
        rows = -(-num_samples // columns)
        blank = torch.ones(rows * columns - len(images), *images.shape[1:], device=images.device)
        return save_picture(ImageGrid(images=torch.cat([images, blank]).unflatten(0, (rows, columns))), out)

    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if method.device.type == "cuda":
        method.to(torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))))
    files = SampleFiles(
        out,
        num_samples=1000 if cfg.num_samples is None else cfg.num_samples,
        seed=seed,
        format=cfg.format or "png",
        facts={"run": str(run_dir), **checkpoint_identity(find_checkpoint(run_dir)), **chosen},
    )
    done = 0
    try:
        with Progress(transient=True, disable=rank > 0 or not sys.stderr.isatty()) as progress:
            bar = progress.add_task("samples", total=-(-files.num_samples // world_size))
            for done in files.write(sample, method.device, rank=rank, world_size=world_size):
                progress.update(bar, completed=done)
    except KeyboardInterrupt:
        print("ssl-lab: Stopped. Run the same command again to continue after the finished files.", file=sys.stderr)
        return 130
    share = f" by process {rank} of {world_size}" if world_size > 1 else ""
    print(f"{done:,} samples{share}: {out}")
    return 0


def _sample(method: Method, options: dict[str, Any], num_samples: int, generator: torch.Generator) -> Tensor:
    """Samples, all of one class if ``options`` names one."""
    given = {name: torch.full((num_samples,), value) if name == "label" else value for name, value in options.items()}
    given = {name: value.to(method.device) if isinstance(value, Tensor) else value for name, value in given.items()}
    images: Tensor = method.capabilities()["sample"](num_samples, generator, **given)
    check_finite(images, "drawn", what="Pixels", use="shown")
    return images


def _options(method: Method, spec: Spec, chosen: dict[str, Any]) -> dict[str, Any]:
    """Refuse options that the method's samples do not take."""
    taken = inspect.signature(method.capabilities()["sample"]).parameters
    for name, value in chosen.items():
        if name not in taken:
            known = [option for option in ("label", "truncation") if option in taken]
            raise ValueError(
                f"Cannot use {name}={value}: samples of {type(method).__name__} take "
                f"{', '.join(known) or 'neither label nor truncation'}. Leave {name} out."
            )
    label, number = chosen.get("label"), spec.num_classes
    if label is not None and not (isinstance(label, int) and 0 <= label < (number or 0)):
        raise ValueError(f"Cannot draw label={label}: the run's classes are 0 to {(number or 0) - 1}.")
    return chosen
