"""Trackio: in its local folder (``TRACKIO_DIR``), or where ``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL`` say."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ssl_lab.engine.logging.adapters import Adapter, Pixels, adapter_of
from ssl_lab.engine.logging.kept_id import KeptId, short_name
from ssl_lab.extras import needed_to


class Trackio(Logger):
    """A run of Trackio; a run that is resumed continues it.

    Args:
        run_dir: The run directory.
        project: Name of the project.
        group: Name under which runs are grouped.
    """

    def __init__(self, *, run_dir: str, project: str, group: str | None = None) -> None:
        super().__init__()
        with needed_to("log to Trackio (logger=trackio)"):
            import trackio  # noqa: F401

        self.kept = KeptId(run_dir, "trackio")
        self._title = short_name(run_dir)
        self._project = project
        self._group = group
        self._config: dict[str, Any] = {}
        self._experiment: Any = None

    @property
    def name(self) -> str:
        """Name of the project."""
        return self._project

    @property
    def version(self) -> str | None:
        """The kept id, part of the run's name."""
        return self.kept.read()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The Trackio run, created when something is first logged."""
        import trackio

        if self._experiment is None:
            id = self.kept.read() or secrets.token_hex(4)
            self.kept.keep(id)
            settings = {"name": f"{self._title} {id}", "group": self._group, "config": self._config}
            self._experiment = trackio.init(self._project, resume="allow", embed=False, **settings)
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration, which Trackio takes when the run begins."""
        self._config = dict(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Scalars of a step."""
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write out the rest and end the run."""
        import trackio

        if self._experiment is not None:
            trackio.finish()  # which also forgets it
            self._experiment = None


class TrackioAdapter(Adapter):
    """Pictures as Trackio's images, sentences as Markdown."""

    logger: Trackio

    def image(self, key: str, pixels: Pixels, step: int) -> None:
        """Log an image."""
        import trackio

        self.logger.experiment.log({key: trackio.Image(pixels)}, step=step)

    def sentences(self, key: str, markdown: str, step: int) -> None:
        """Log Markdown."""
        import trackio

        self.logger.experiment.log({key: trackio.Markdown(markdown)}, step=step)

    def begin_anew(self) -> None:
        """Continue in another run of Trackio."""
        self.logger.kept.forget()


adapter_of.register(Trackio, TrackioAdapter)
