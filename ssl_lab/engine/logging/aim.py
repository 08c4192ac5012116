"""Aim: in the repository ``.aim`` of the working folder or one above it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from ssl_lab.engine.logging.adapters import Adapter, Pixels, adapter_of
from ssl_lab.engine.logging.kept_id import KeptId, short_name
from ssl_lab.extras import needed_to


class Aim(Logger):
    """A run of Aim; a run that is resumed continues it.

    Args:
        run_dir: The run directory.
        project: Name of Aim's experiment.
        tags: Tags of the run.
    """

    def __init__(self, *, run_dir: str, project: str, tags: list[str] | None = None) -> None:
        super().__init__()
        with needed_to("log to Aim (logger=aim)"):
            import aim  # noqa: F401

        self.kept = KeptId(run_dir, "aim")
        self._title = short_name(run_dir)
        self._project = project
        self._tags = tags or []
        self._experiment: Any = None

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self._project

    @property
    def version(self) -> str | None:
        """The kept id."""
        return self.kept.read()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The Aim run, created when something is first logged."""
        import aim

        if self._experiment is None:
            kept = self.kept.read()
            place = {"run_hash": kept, "force_resume": True} if kept else {"experiment": self._project}
            run = aim.Run(**place, system_tracking_interval=None, log_system_params=False, capture_terminal_logs=False)
            if kept is None:
                run.name = self._title
                for tag in self._tags:
                    run.add_tag(tag)
                self.kept.keep(run.hash)
            self._experiment = run
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration, as ``hparams``."""
        self.experiment.set("hparams", dict(params), strict=False)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Scalars of a step."""
        for name, value in metrics.items():
            self.experiment.track(float(value), name=name, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write out the rest and end the run."""
        if self._experiment is not None:
            self._experiment.close()
            self._experiment = None


class AimAdapter(Adapter):
    """Pictures as Aim's images, sentences as texts."""

    logger: Aim

    def image(self, key: str, pixels: Pixels, step: int) -> None:
        """Track an image."""
        import aim

        self.logger.experiment.track(aim.Image(Image.fromarray(pixels)), name=key, step=step)

    def sentences(self, key: str, markdown: str, step: int) -> None:
        """Track a text."""
        import aim

        self.logger.experiment.track(aim.Text(markdown), name=key, step=step)

    def begin_anew(self) -> None:
        """Continue in another run of Aim."""
        self.logger.kept.forget()


adapter_of.register(Aim, AimAdapter)
