"""Comet: online if a key is known, else in files of the run directory."""

from __future__ import annotations

import secrets
from pathlib import Path

from lightning.pytorch.loggers import CometLogger
from lightning.pytorch.utilities import rank_zero_only

from ssl_lab.engine.logging.adapters import Adapter, Pixels, adapter_of
from ssl_lab.engine.logging.kept_id import KeptId, short_name
from ssl_lab.extras import require
from ssl_lab.limited import read_text


class Comet(CometLogger):
    """An experiment of Comet; a run that is resumed continues it.

    The key is that of ``COMET_API_KEY`` or ``~/.comet.config``; without one the experiment is written to
    ``<run_dir>/comet``, for ``comet upload``.

    Args:
        run_dir: The run directory.
        project: Name of the project.
        tags: Tags of the experiment.
    """

    def __init__(self, *, run_dir: str, project: str, tags: list[str] | None = None) -> None:
        _refuse_settings_of_folder()
        require("log to Comet (logger=comet)", "comet-ml")
        self.kept = KeptId(run_dir, "comet")
        self.is_built = False
        super().__init__(
            project=project,
            name=short_name(run_dir),
            tags=tags or [],
            offline_directory=str(Path(run_dir) / "comet"),
            parse_args=False,
            log_code=False,
            log_git_patch=False,
            auto_output_logging="simple",
            display_summary_level=0,
        )
        self.is_built = True

        import comet_ml

        self._online = bool(comet_ml.config.get_api_key(None, comet_ml.get_config()))
        if not self._online:
            rank_zero_only(print)(f"Comet is offline. Upload later with: comet upload {run_dir}/comet/*.zip")

    def _create_experiment(self) -> None:
        """Begin when something is logged, and not before."""
        if not self.is_built:
            return
        kept = self.kept.read()
        self._experiment_key = kept or secrets.token_hex(16)
        self._mode = "get" if kept else "create"
        super()._create_experiment()
        self.kept.keep(self._experiment_key)


class CometAdapter(Adapter):
    """Pictures as Comet's images, sentences as texts."""

    logger: CometLogger

    def image(self, key: str, pixels: Pixels, step: int) -> None:
        """Log an image."""
        self.logger.experiment.log_image(pixels, name=key, step=step)

    def sentences(self, key: str, markdown: str, step: int) -> None:
        """Log a text."""
        self.logger.experiment.log_text(markdown, step=step, metadata={"name": key})

    def begin_anew(self) -> None:
        """Continue in another experiment."""
        if isinstance(self.logger, Comet):
            self.logger.kept.forget()

    def finish(self, *, failed: bool) -> None:
        """Upload the rest, or write the archive."""
        self.logger.experiment.end()


adapter_of.register(CometLogger, CometAdapter)


def _refuse_settings_of_folder() -> None:
    """Refuse settings of Comet in the working folder, which could send the user's key to another server.

    Raises:
        ValueError: If there are any.
    """
    path = Path(".comet.config")
    if path.is_file() and path.resolve() != Path("~/.comet.config").expanduser().resolve():
        raise ValueError(
            "Cannot use logger=comet: found .comet.config in this folder, which may send your key and results to another "
            "server. Move it to your home folder, or set COMET_... variables in front of the command."
        )
    lines = read_text(Path(".env")).splitlines() if Path(".env").is_file() else []
    for name in (line.partition("=")[0].strip() for line in lines):
        if name.upper().startswith("COMET"):
            raise ValueError(
                f"Cannot use logger=comet: .env in this folder sets {name}, which may send your key and results to another "
                f"server. Remove the line, and set {name}=... in front of the command if you want it."
            )
