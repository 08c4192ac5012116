"""Base class of pretraining objectives."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, ClassVar, Self, final

import lightning as L
import torch
from lightning.fabric.plugins.precision.amp import _optimizer_handles_unscaling as _scales_by_itself
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from torch import Tensor, nn

from ssl_lab import distributed
from ssl_lab.optim import Optim
from ssl_lab.types import Batch, Encoder, Picture, Spec


class Method(L.LightningModule, ABC):
    """A pretraining objective around an encoder.

    A method sees raw batches without reading labels (but for supervised ones, which say so), and knows neither the data
    set's name nor the trainer's settings. Subclasses implement ``training_step`` and are final.

    Attributes:
        takes: Kind of data it pretrains on; None where it knows none and takes what its encoder does.
        uses_labels: Whether the objective reads labels.
        needs_columns: Columns of a batch that not all data of this kind have, and that it cannot do without.
        columns_from: What a message says to choose for data with such a column, by its name.
        coupled_by: What ties the samples of a batch together, if the loss of a batch is not the mean of the losses of its
            parts; accumulating gradients over parts would then train another objective and is refused.
        min_samples: Samples of one step on all ranks below which the objective says nothing, such as 2 where samples are
            contrasted with each other.
        whole_by: What needs whole parameters on each rank, so that sharding them (``trainer=fsdp2``) is refused.
        may_collapse: Whether features that are nearly alike are a sign of failure; not where single tokens are predicted from
            their states, whose means over a text lie close together however good they are, nor in tasks, which want the
            features of a class to be alike.
        alike_at_first: Share of training in which features that are nearly alike are no sign of failure yet.
        collapse_advice: What to change once features have collapsed.
        learns_slowly: Why short trainings of it give poor features, if they do; begins a sentence.

    Args:
        encoder: The network whose features are wanted.
        optim: Optimizer, schedule and weight-decay groups as one value.

    Raises:
        ValueError: If the encoder was built for another kind of data.
    """

    takes: ClassVar[type[Spec] | None] = None
    uses_labels: ClassVar[bool] = False
    needs_columns: ClassVar[tuple[str, ...]] = ()
    columns_from: ClassVar[Mapping[str, str]] = {}
    coupled_by: ClassVar[str] = ""
    min_samples: ClassVar[int] = 1
    whole_by: ClassVar[str] = ""
    may_collapse: ClassVar[bool] = True
    alike_at_first: ClassVar[float] = 0.0
    collapse_advice: ClassVar[str] = (
        "Lower optim.lr, check that targets get no gradient (stop-gradient, teacher), or strengthen what keeps samples apart "
        "(negatives, variance term, centring)."
    )
    learns_slowly: ClassVar[str] = ""

    def __init_subclass__(cls, **settings: Any) -> None:
        """Let the constructor take a bare network of torchvision, timm or your own in the place of an encoder."""
        super().__init_subclass__(**settings)
        if "__init__" in vars(cls):
            cls.__init__ = _adapting(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, encoder: Encoder, optim: Optim) -> None:
        super().__init__()
        if not isinstance(optim, Optim):
            found = optim.__name__ if isinstance(optim, type) else type(optim).__name__
            raise ValueError(
                f"Cannot train {type(self).__name__} with {found}: optim is a setting of ssl_lab, which builds the optimizer "
                "when the length of training is known. Give one of ssl_lab.optim, such as AdamW(lr=1e-3)."
            )
        if self.takes is not None:
            self.takes.of(encoder.spec, type(self).__name__)
        self.encoder = encoder
        self.optim = optim
        self.last_loss = torch.tensor(0.0)

    @property
    def result_name(self) -> str:
        """Return the name of the trained row in tables."""
        return f"{type(self).__name__} encoder"

    def fit(self, data: Any, **settings: Any) -> Self:
        """Train on data of any kind and judge the encoder, see :func:`ssl_lab.api.estimator.fit`; returns the method.

        Args:
            data: As for :func:`ssl_lab.pretrain`.
            **settings: ``labels=``, ``epochs=`` and more.
        """
        fit = import_module("ssl_lab.api.estimator").fit  # a room above this one, which no method needs to be trained
        return fit(self, data, **settings)  # type: ignore[no-any-return]

    def embed(self, data: Any) -> Any:
        """Features float32 (N, D) of samples, a row for each in their order; ``data`` as for :func:`ssl_lab.pretrain`."""
        return import_module("ssl_lab.api.estimator").embed(self, data)

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        """One step of the objective; reads like the paper."""

    def configure_optimizers(self) -> Any:
        """One optimizer over all parameters, its schedule counted in optimizer steps."""
        optimizer, schedule = self.optim.build(self, total_steps=self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training.

        Raises:
            ValueError: If it has no end.
        """
        steps = self.trainer.estimated_stepping_batches
        if steps == math.inf:
            raise ValueError(
                f"Cannot plan schedules for a training without an end: trainer.max_epochs={self.trainer.max_epochs} and "
                f"trainer.max_steps={self.trainer.max_steps} set no number of steps. Set one of them above 0."
            )
        return int(steps)

    def on_fit_start(self) -> None:
        """Refuse to accumulate gradients where that would change the objective.

        Raises:
            ValueError: If the trainer accumulates and the samples of a batch are coupled.
        """
        parts = self.trainer.accumulate_grad_batches
        if parts != 1 and self.coupled_by:
            raise ValueError(
                f"{type(self).__name__} cannot accumulate gradients over {parts} batches: {self.coupled_by}, so the mean "
                "over parts is another objective. Use trainer.accumulate_grad_batches=1 and a larger data.batch_size, "
                "or more devices."
            )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Lightning's, and then :meth:`after_step`."""
        super().optimizer_step(*args, **kwargs)
        self.after_step()

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Lightning's, and in bf16 for fused optimizers too; the norm before it is logged as ``optim/grad_norm``.

        Before that, the gradient of an incomplete last window of accumulation becomes the mean over its own batches.
        Lightning refuses these under any mixed precision, as they scale gradients back by themselves; in bf16 nothing is
        scaled.
        """
        parts = self.trainer.accumulate_grad_batches
        if found := (self.trainer.fit_loop.batch_idx + 1) % parts:  # Lightning has divided it like a whole one
            for p in (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None):
                p.grad.mul_(parts / found)
        plugin = self.trainer.precision_plugin
        if self._is_logged_step():
            norm = distributed.gradient_norm(p for group in optimizer.param_groups for p in group["params"])
            if isinstance(plugin, MixedPrecision) and plugin.scaler is not None and _scales_by_itself(optimizer):
                norm = norm / plugin.scaler.get_scale()
            self.log("optim/grad_norm", norm)
        if isinstance(plugin, MixedPrecision) and plugin.scaler is None and gradient_clip_val is not None:
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val, algorithm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def after_step(self) -> None:
        """Act after each optimizer step, such as moving a teacher; nothing by default."""

    def progress(self) -> float:
        """Share of all optimizer steps that are done, in [0, 1]."""
        return min(1.0, self.global_step / self.total_steps)

    def log_losses(self, loss: Tensor, **parts: Tensor) -> Tensor:
        """Log ``train/loss``, the differentiated loss, and its parts as ``train/<part>``; returns the loss.

        Only in steps whose row is written: a call of Lightning's ``log`` costs about a millisecond.
        """
        self.last_loss = loss.detach()
        if self._is_logged_step():
            self.log("train/loss", self.last_loss, prog_bar=True)
            self.log_dict({f"train/{name}": part.detach() for name, part in parts.items()})
        return loss

    def _is_logged_step(self) -> bool:
        if self._trainer is None:  # a step outside of a trainer
            return False
        done = self.global_step if self.automatic_optimization else self.trainer.fit_loop.total_batch_idx
        interval = int(self.trainer.log_every_n_steps)  # type: ignore[attr-defined]
        return interval > 0 and (done + 1) % interval == 0

    @final
    @torch.no_grad()
    def features(self, batch: Batch) -> Tensor:
        """Features that protocols score, shape (B, D): ``represent`` in eval mode, deterministic."""
        return self.in_eval_mode(self.represent)(batch)

    @property
    def feature_encoder(self) -> Encoder:
        """The encoder whose features are the method's representation; the trained one, or a teacher's."""
        return self.encoder

    def represent(self, batch: Batch) -> Tensor:
        """The method's representation of a batch; its encoder's features unless the method says otherwise."""
        return self.feature_encoder.embed(batch)

    def capabilities(self) -> Mapping[str, Callable[..., Any]]:
        """Return the functions for protocols, by the name in ``Protocol.needs``; generative methods add ``sample``."""
        return {"features": self.features}

    def pictures(self, batch: Batch) -> Mapping[str, Picture]:
        """Return pictures to look at during training, by name, for a batch of validation samples."""
        return {}

    def pretexts(self) -> Iterator[nn.Module]:
        """Yield the modules that draw this method's views or masks: its parts without parameters and buffers."""
        for child in self.children():
            if isinstance(child, nn.ModuleList):  # possibly an empty one
                continue
            if next(child.parameters(), None) is None and next(child.buffers(), None) is None:
                yield child

    def in_eval_mode(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """``fn`` run with dropout and batch statistics off; each module's mode is restored afterwards."""

        @functools.wraps(fn)
        def run(*args: Any, **kwargs: Any) -> Any:
            modes = {module: module.training for module in self.modules()}
            self.eval()
            try:
                return fn(*args, **kwargs)
            finally:
                for module, mode in modes.items():
                    module.training = mode

        return run


def into_training(module: nn.Module) -> None:
    """Put a network that is in eval mode as a whole into training mode, but for its frozen parts.

    A part is frozen if it has parameters, and none of them requires a gradient.
    """
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        return
    module.training = True
    for child in module.children():
        into_training(child)


def _adapting(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor whose encoder may be a bare network, and may be in eval mode, as most libraries load networks."""

    @functools.wraps(init)
    def adapted(self: Method, encoder: Any, *args: Any, **settings: Any) -> None:
        if isinstance(encoder, nn.Module) and not encoder.training:
            into_training(encoder)
        if isinstance(encoder, nn.Module) and not isinstance(encoder, Encoder):
            from ssl_lab.encoders.network import Network

            encoder = Network(encoder)
        init(self, encoder, *args, **settings)

    return adapted
