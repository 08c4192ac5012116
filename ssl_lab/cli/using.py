"""``ssl-lab sample``: what a finished run draws or writes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from ssl_lab.cli import config
from ssl_lab.cli.drawing import draw_samples
from ssl_lab.cli.process import compose_settings, find_device
from ssl_lab.data.tokenizer import load_tokenizer
from ssl_lab.engine.complete import complete
from ssl_lab.engine.fill_masks import fill_masks
from ssl_lab.methods.base import Method
from ssl_lab.outputs import clear
from ssl_lab.types import DataSpec

_SETTINGS = {
    "images": {"num_samples", "seed", "out", "format", "label", "truncation"},
    "masks": {"text", "top_k"},
    "text": {"prompt", "num_samples", "seed", "max_new_tokens", "temperature", "top_k", "top_p"},
}
"""Which settings of ``ssl-lab sample`` mean something for what it draws."""


def sample(args: list[str]) -> int:
    """``ssl-lab sample``: images, the masks of a text filled, or continued prompts."""
    literal, overrides = _split_off(args, ("text", "prompt"))
    cfg = compose_settings("sample", overrides)
    OmegaConf.set_readonly(cfg, True)
    run_dir = Path(cfg.run)
    given = {str(name) for name, value in cfg.items() if value is not None} - {"run"} | set(literal)
    kind = "masks" if "text" in literal else "text" if "prompt" in literal else "images"
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
        return _fill_masks(method, spec, run_dir, literal["text"], top_k=5 if cfg.top_k is None else cfg.top_k)
    if kind == "text":
        settings = {str(name): value for name, value in cfg.items() if name in given - set(literal)}
        return _complete(method, spec, run_dir, literal["prompt"], settings)
    if "sample" not in method.capabilities():
        raise ValueError(f"{type(method).__name__} draws no images. {_remedy(method)}")
    return draw_samples(method, spec, run_dir, cfg)


def _remedy(method: Method) -> str:
    """How a run that generates no images is used, if it can be sampled at all."""
    if "predict_masked" in method.capabilities():
        return 'It fills masks: give text="...", or run= a VAE or GAN run.'
    if "generate" in method.capabilities():
        return 'It continues a text: give prompt="...", or run= a VAE or GAN run.'
    return "Give run= a VAE or GAN run."


def _fill_masks(method: Method, spec: DataSpec, run_dir: Path, text: str, *, top_k: int) -> int:
    capabilities = method.capabilities()
    if "predict_masked" not in capabilities:
        raise ValueError(
            f"text= asks for masks to be filled, but {type(method).__name__} does not predict masked tokens. Give run= a "
            "run of method=mlm."
        )
    tokenizer = load_tokenizer(str(run_dir / "tokenizer"))
    filled = fill_masks(
        capabilities["predict_masked"], tokenizer, spec, text, top_k=top_k, device=torch.device(method.device)
    )
    for number, guesses in enumerate(filled.guesses, start=1):
        print(f"mask {number}:  " + "   ".join(f"{guess.token} {100 * guess.probability:.1f} %" for guess in guesses))
    print(filled.completed)
    return 0


def _complete(method: Method, spec: DataSpec, run_dir: Path, prompt: str, settings: dict[str, Any]) -> int:
    capabilities = method.capabilities()
    if "generate" not in capabilities:
        raise ValueError(
            f"prompt= asks for texts, but {type(method).__name__} does not generate any. Give run= a run of "
            "method=causal_lm."
        )
    tokenizer = load_tokenizer(str(run_dir / "tokenizer"), framing="causal")
    texts = complete(capabilities["generate"], tokenizer, spec, prompt, device=torch.device(method.device), **settings)
    print("\n\n".join(texts))
    return 0


def _split_off(args: list[str], names: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """Settings whose values are taken as they are, since brackets and quotes in them are text; and the other arguments."""
    literal, others = {}, []
    for arg in args:
        name, equals, value = arg.partition("=")
        if equals and name in names:
            literal[name] = value
        else:
            others.append(arg)
    return literal, others
