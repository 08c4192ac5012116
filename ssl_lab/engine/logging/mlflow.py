"""MLflow: in the store that ``MLFLOW_TRACKING_URI`` names, or else in ``mlflow.db`` of the working folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlparse

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from ssl_lab.engine.logging.adapters import Adapter, Pixels, adapter_of
from ssl_lab.engine.logging.kept_id import KeptId, short_name
from ssl_lab.extras import needed_to
from ssl_lab.runs.compare import flatten
from ssl_lab.runs.files import NOT_REPEATED

_LONGEST_VALUE = 500  # characters that every MLflow store takes
_MOST_PARAMS = 100  # in one request


class MLflow(MLFlowLogger):
    """A run in the store that MLflow's own tools use: no setting, and so no file of a stranger's, says where.

    A run that is resumed continues its MLflow run, as long as the store has it.

    Args:
        run_dir: The run directory.
        project: Name of MLflow's experiment.
        group: Tag ``group`` of the run.
    """

    def __init__(self, *, run_dir: str, project: str, group: str | None = None) -> None:
        with needed_to("log to MLflow (logger=mlflow)"):
            import mlflow

        for name in ("alembic", "mlflow.store.db.utils", "lightning.pytorch.loggers.mlflow"):
            logging.getLogger(name).setLevel(logging.ERROR)  # they tell how a database is made
        self.kept = KeptId(run_dir, "mlflow")
        uri = mlflow.get_tracking_uri()
        super().__init__(
            experiment_name=project,
            run_name=short_name(run_dir),
            tracking_uri=uri,
            tags={"group": group} if group else None,
        )
        if uri.startswith("sqlite:"):
            rank_zero_only(print)(f"MLflow writes to {uri}. Look at it with: mlflow ui --backend-store-uri {uri}")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The client, after the kept run was found or a new one was made."""
        from mlflow.exceptions import MlflowException

        if not self._initialized:
            self._run_id = self.kept.read()
            if self._run_id is not None:
                try:
                    self._mlflow_client.update_run(self._run_id, status="RUNNING")
                except MlflowException:  # another store, or its run was deleted
                    self._run_id = None
            client = super().experiment
            _refuse_place_of_folder(client.get_run(self._run_id).info.artifact_uri)
            self.kept.keep(str(self._run_id))
            return client
        return super().experiment


class MLflowAdapter(Adapter):
    """Pictures as MLflow's images with steps, sentences as text artifacts, settings as parameters."""

    logger: MLFlowLogger

    def settings(self, params: Mapping[str, Any]) -> None:
        """Log parameters; MLflow keeps the first value of each, so a changed one is a tag ``changed.<name>``."""
        from mlflow.entities import Param, RunTag

        client, run_id = self.logger.experiment, self.logger.run_id
        values = {key: value[:_LONGEST_VALUE] for key, value in flatten(params).items()}
        known = client.get_run(run_id).data.params
        new = [Param(key, value) for key, value in values.items() if key not in known]
        for start in range(0, len(new), _MOST_PARAMS):
            client.log_batch(run_id, params=new[start : start + _MOST_PARAMS])
        changed = [key for key, value in values.items() if known.get(key, value) != value and key not in NOT_REPEATED]
        client.log_batch(run_id, tags=[RunTag(f"changed.{key}", values[key]) for key in changed])

    def image(self, key: str, pixels: Pixels, step: int) -> None:
        """Log an image."""
        self.logger.experiment.log_image(self.logger.run_id, pixels, key=key, step=step)

    def sentences(self, key: str, markdown: str, step: int) -> None:
        """Log a text artifact, ``<key>/step_<step>.md``."""
        path = PurePosixPath(key) / f"step_{step:08d}.md"
        self.logger.experiment.log_text(self.logger.run_id, markdown, str(path))

    def begin_anew(self) -> None:
        """Continue in another MLflow run."""
        if isinstance(self.logger, MLflow):
            self.logger.kept.forget()


adapter_of.register(MLFlowLogger, MLflowAdapter)


def _refuse_place_of_folder(uri: str) -> None:
    """Refuse a store of the working folder that would send pictures elsewhere.

    Raises:
        ValueError: If the user has not chosen the store by a variable, and it keeps artifacts on another machine.
    """
    if "MLFLOW_TRACKING_URI" not in os.environ and urlparse(uri).scheme not in ("", "file"):
        raise ValueError(
            f"the store of this folder keeps pictures at {uri}. Set MLFLOW_TRACKING_URI to this store if you want that, or "
            "start where there is no mlflow.db"
        )
