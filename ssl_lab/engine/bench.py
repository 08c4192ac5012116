"""Benchmark of an experiment: its speed, the time of each part of a step, and the share of the machine's peak."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ssl_lab import distributed
from ssl_lab.data.base import DataModule
from ssl_lab.devices import device_name, synchronise
from ssl_lab.engine.callbacks.progress import about
from ssl_lab.engine.flops import peak_flops, synchronised_time
from ssl_lab.methods.base import Method
from ssl_lab.runs.environment import cpu_threads
from ssl_lab.types import Batch, Encoder

_MIN_STEPS = 3  # of a median, however long they take


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Measurements of :func:`bench`; medians over steps, of the first rank where ranks differ.

    Attributes:
        samples_per_sec: Of all ranks.
        tokens_per_sec: Real tokens, padding left out, of all ranks; None for images.
        step_ms: From the start of a step to the start of the next.
        shares: Share of the step spent on ``data``, ``views`` (or masking), ``forward_backward``, ``optimizer`` and
            ``other``, which is Lightning, logging and callbacks.
        step_tflop: Floating-point operations of a step's forward and backward pass, counted by torch, in 1e12.
        mfu: Model FLOP utilisation: ``step_tflop`` over what the device could have done in that time.
        peak_tflops: Its peak, 1e12 operations a second: by data sheet, or on the CPU the rate of a large matrix product
            measured beside.
        bare_ms: Forward and backward pass of the encoder alone on random data of the same shape and precision.
        ratio: ``step_ms / bare_ms``.
        num_steps: Steps that were timed as a whole, and as many again part by part.
        device: The device's name.
        precision: Lightning's name of the precision.
    """

    samples_per_sec: float
    tokens_per_sec: float | None
    step_ms: float
    shares: dict[str, float]
    step_tflop: float
    mfu: float
    peak_tflops: float
    bare_ms: float
    ratio: float
    num_steps: int
    device: str
    precision: str


class _Clock(Callback):
    """Times steps: some as they are, then some with the device waited for at the borders of their parts.

    Once it knows how long a step takes, it says how long timing takes, and times fewer steps where that is too long.
    """

    def __init__(
        self, *, warmup_steps: int, num_steps: int, max_sec: float | None, tell: Callable[[str], None]
    ) -> None:
        self.warmup_steps = warmup_steps
        self.num_steps = num_steps
        self.max_sec = max_sec
        self.tell = tell
        self.plain: list[float] = []
        self.parts: list[dict[str, float]] = []
        self.num_tokens = 0.0
        self.flop = 0
        self.calls: list[
            tuple[Encoder, Callable[..., Any], tuple[Any, ...]]
        ] = []  # of encoders in a step, with gradient
        self._step = 0
        self._seconds = dict.fromkeys(("data", "views", "training_step", "closure", "optimizer"), 0.0)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Method)
        self.device = pl_module.device
        self._instrument(pl_module, trainer.optimizers)
        self._start = self._end = self._first_end = self._now()

    def _instrument(self, method: Method, optimizers: list[Any]) -> None:
        def remember(encoder: Any, inputs: tuple[Any, ...]) -> None:
            if torch.is_grad_enabled():
                self.calls.append((encoder, encoder, inputs))

        for encoder in method.encoder.modules():
            if isinstance(encoder, Encoder):  # one, or those of which it is made
                encoder.register_forward_pre_hook(remember)
                encoder.embed = self._remembered(encoder, encoder.embed)  # type: ignore[assignment, method-assign]
        for pretext in method.pretexts():
            pretext.register_forward_pre_hook(lambda *_: self._tick("views", -1))
            pretext.register_forward_hook(lambda *_: self._tick("views", 1))
        method.training_step = self._timed("training_step", method.training_step)  # type: ignore[method-assign]
        method.optimizer_step = self._with_timed_closure(method.optimizer_step)  # type: ignore[method-assign]
        for optimizer in optimizers:
            optimizer.register_step_pre_hook(lambda *_: self._tick("optimizer", -1))
            optimizer.register_step_post_hook(lambda *_: self._tick("optimizer", 1))

    def _remembered(self, encoder: Encoder, embed: Callable[[Batch], Tensor]) -> Callable[[Batch], Tensor]:
        """``embed``, counted as a call by itself if it contains no forward pass of an encoder."""

        def run(batch: Batch) -> Tensor:
            before = len(self.calls)
            features = embed(batch)
            if len(self.calls) == before and torch.is_grad_enabled():
                self.calls.append((encoder, embed, (batch,)))
            return features

        return run

    def _with_timed_closure(self, optimizer_step: Callable[..., None]) -> Callable[..., None]:
        def run(epoch: int, batch_idx: int, optimizer: Any, closure: Callable[[], Any] | None = None) -> None:
            optimizer_step(epoch, batch_idx, optimizer, closure and self._timed("closure", closure))

        return run

    def _now(self) -> float:
        synchronise(self.device)
        return time.perf_counter()

    @property
    def _apart(self) -> bool:
        return self._step > self.warmup_steps + self.num_steps

    def _tick(self, part: str, sign: int) -> None:
        """Begin (-1) or end (1) a stretch of a part."""
        if self._apart:
            self._seconds[part] += sign * self._now()

    def _timed(self, part: str, fn: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            self._tick(part, -1)
            result = fn(*args, **kwargs)
            self._tick(part, 1)
            return result

        return run

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._step += 1
        self.calls = []
        if self._apart:
            self._seconds["data"] += self._now() - self._end
        if self._step == 1:
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self._step == 1:
            self._counter.__exit__(None, None, None)
            self.flop = self._counter.get_total_flops()
        if self._step <= max(1, self.warmup_steps):
            self._plan(trainer)
        if self._step == self.warmup_steps:
            self._start = self._now()
        elif self.warmup_steps < self._step <= self.warmup_steps + self.num_steps:
            # The device is not waited for at each step here: the mean over a few is what training takes.
            if (self._step - self.warmup_steps) % max(1, self.num_steps // 5) == 0:
                now = self._now()
                self.plain.append((now - self._start) / max(1, self.num_steps // 5))
                self._start = now
            if "attention_mask" in batch:
                self.num_tokens += float(batch["attention_mask"].sum()) / self.num_steps
        elif self._apart:
            now = self._now()
            self.parts.append({**self._seconds, "step": now - self._end})
            self._seconds = dict.fromkeys(self._seconds, 0.0)
        self._end = self._now() if self._step >= self.warmup_steps + self.num_steps else time.perf_counter()

    def _plan(self, trainer: L.Trainer) -> None:
        """End the warm-up where steps are slow; at its end say how long timing takes, and fit it into the time."""
        now = self._now()
        since_first = now - self._first_end
        if self._step == 1:
            self._first_sec, self._first_end = since_first, now  # the first step counts operations and is slower
        slow = self.max_sec is not None and self._step > 1 and since_first > self.max_sec / 8
        if distributed.any_rank(slow, self.device):
            self._set_steps(trainer, self._step, self.num_steps)
        if self._step < self.warmup_steps:
            return
        step_sec = since_first / (self._step - 1) if self._step > 1 else self._first_sec
        num_steps = self.num_steps
        if self.max_sec is not None:
            num_steps = min(num_steps, max(_MIN_STEPS, int(self.max_sec / (2 * step_sec))))
        num_steps = distributed.broadcast_object(num_steps)
        takes = f"A step takes about {about(step_sec)}"
        if num_steps < self.num_steps:
            takes += f", so {num_steps} steps are timed in place of {self.num_steps}; max_minutes= allows more time"
            self._set_steps(trainer, self.warmup_steps, num_steps)
        left = step_sec * (2 * num_steps + _num_repeats(num_steps))
        self.tell(f"{takes}. Timing takes about {about(left)}.")

    def _set_steps(self, trainer: L.Trainer, warmup_steps: int, num_steps: int) -> None:
        """Change the plan, and with it the end of training."""
        before, after = (
            warm + 2 * num for warm, num in ((self.warmup_steps, self.num_steps), (warmup_steps, num_steps))
        )
        self.warmup_steps, self.num_steps = warmup_steps, num_steps
        trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps * after // before


def _nothing(words: str) -> None:
    """Tell nobody."""


def _num_repeats(num_steps: int) -> int:
    """Passes of the encoder alone that are timed."""
    return max(3, num_steps // 3)


def bench(
    method: Method,
    datamodule: DataModule,
    trainer: L.Trainer,
    *,
    warmup_steps: int = 5,
    num_steps: int = 30,
    max_sec: float | None = None,
    tell: Callable[[str], None] = _nothing,
) -> Speed:
    """Train a few steps and measure them.

    Args:
        method: The objective.
        datamodule: The data.
        trainer: A trainer that stops after ``warmup_steps + 2 * num_steps`` steps.
        warmup_steps: Steps left out.
        num_steps: Steps timed as they are, and again with their parts apart.
        max_sec: Seconds for these; where steps are slow, fewer are timed, at least three. None: no bound.
        tell: Is told what is done and how long it takes, a sentence each, on every rank.

    Raises:
        ValueError: If training ended before that many steps, or does not run its encoder.
    """
    clock = _Clock(warmup_steps=warmup_steps, num_steps=num_steps, max_sec=max_sec, tell=tell)
    trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    trainer.fit(method, datamodule=datamodule)
    if not clock.parts:
        raise ValueError(
            f"Timing needs {warmup_steps} + 2 x {num_steps} steps, but training ended earlier. Lower num_steps, or raise "
            "trainer.max_epochs."
        )
    if not clock.calls:
        raise ValueError(
            f"Cannot time {type(method.encoder).__name__} alone: a step of {type(method).__name__} calls neither its forward "
            "pass nor its embed. Call one of them in training_step."
        )
    device = trainer.strategy.root_device
    step = statistics.median(clock.plain)
    method.to(device)
    repeats = _num_repeats(clock.num_steps)
    tell(f"Timing the encoder alone, {repeats} times forward and backward.")
    bare = sum(_bare_seconds(*call, trainer, repeats=repeats) for call in tuple(clock.calls))
    peak = peak_flops(device, str(trainer.precision))
    world = distributed.world_size()
    return Speed(
        samples_per_sec=datamodule.batch_size * world / step,
        tokens_per_sec=clock.num_tokens * world / step if clock.num_tokens else None,
        step_ms=1000 * step,
        shares=_shares(clock.parts),
        step_tflop=clock.flop / 1e12,
        mfu=clock.flop / step / peak,
        peak_tflops=peak / 1e12,
        bare_ms=1000 * bare,
        ratio=step / bare,
        num_steps=clock.num_steps,
        device=device_name(device) or cpu_threads(),
        precision=str(trainer.precision),
    )


def _shares(parts: list[dict[str, float]]) -> dict[str, float]:
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    whole = total["step"]
    if total["closure"] > 0:  # an optimizer's step contains the closure: forward and backward pass
        forward_backward = total["closure"] - total["views"]
        optimizer = total["optimizer"] - total["closure"]
    else:  # stepped by hand, inside of the training step
        forward_backward = total["training_step"] - total["views"] - total["optimizer"]
        optimizer = total["optimizer"]
    shares = {
        "data": total["data"] / whole,
        "views": total["views"] / whole,
        "forward_backward": forward_backward / whole,
        "optimizer": optimizer / whole,
    }
    return {**shares, "other": 1 - sum(shares.values())}


def _bare_seconds(
    encoder: Encoder, call: Callable[..., Any], inputs: tuple[Any, ...], trainer: L.Trainer, *, repeats: int
) -> float:
    """Forward and backward of the encoder on random inputs like those it saw; median of several runs."""
    encoder.train().requires_grad_()

    def random_like(x: Any) -> Any:
        if isinstance(x, Mapping):
            return {name: random_like(column) for name, column in x.items()}
        if not isinstance(x, Tensor) or x.dtype == torch.bool:
            return x
        if x.is_floating_point():
            return torch.rand_like(x)
        return torch.randint_like(x, int(x.max()) + 1)

    inputs = tuple(random_like(x) for x in inputs)
    seconds = []
    for repeat in range(repeats + 2):
        start = synchronised_time()
        with trainer.precision_plugin.forward_context():
            out = call(*inputs)
        out.float().square().mean().backward()
        if repeat >= 2:
            seconds.append(synchronised_time() - start)
    encoder.zero_grad()
    return statistics.median(seconds)
