"""A run in Python: its encoder, its results and its uses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_lab.api.estimator import features_in_order
from ssl_lab.api.recognise import recognise
from ssl_lab.api.results import Results
from ssl_lab.cli.from_python import as_command, overrides_of, run_command

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_lab.cli.using import Opened
    from ssl_lab.data.base import DataModule
    from ssl_lab.methods.base import Method
    from ssl_lab.types import Encoder


class Run:
    """A run directory; weights and data are loaded when they are first needed.

    Args:
        run_dir: The run directory.
        trust: Allow classes that are not ssl_lab's own, which its ``config.yaml`` names; for runs of people you trust.
        args: Arguments of the call that made the run, whose classes are allowed.

    Attributes:
        dir: The run directory.
    """

    def __init__(self, run_dir: str | os.PathLike[str], *, trust: bool = False, args: Sequence[str] = ()) -> None:
        self.dir = Path(run_dir).absolute()
        self._trust = trust
        self._args = list(args)

    @cached_property
    def _opened(self) -> Opened:
        from ssl_lab.cli.using import open_to_use

        with as_command("evaluate", self._args, trust=self._trust):
            opened = open_to_use(self.dir)
            opened.method.cpu()
            return opened

    @property
    def method(self) -> Method:
        """The trained method, in eval mode."""
        return self._opened.method

    @property
    def encoder(self) -> Encoder:
        """The encoder that was judged, in eval mode: ``encoder.embed({"image": images})`` gives features (B, D)."""
        return self.method.feature_encoder

    @property
    def data(self) -> DataModule:
        """The data that it was trained on; they are read when they are first asked for something."""
        return self._opened.datamodule

    @property
    def results(self) -> Results:
        """Metrics on the test split by row: the trained encoder beside raw input and a random encoder."""
        from ssl_lab.runs.directory import read_json

        return Results(read_json(self.dir / "evaluation.json"))

    @property
    def verdict(self) -> str:
        """One line where its result is poor, with the likeliest remedy; empty where all is well."""
        from ssl_lab.runs.directory import read_json
        from ssl_lab.verdict import stored

        return str(stored(read_json(self.dir / "summary.json"), read_json(self.dir / "evaluation.json")))

    @property
    def config(self) -> dict[str, Any]:
        """Its settings, as ``config.yaml`` holds them."""
        from ssl_lab.limited import load_yaml

        return load_yaml(self.dir / "config.yaml", within=self.dir)  # type: ignore[no-any-return]

    def embed(self, data: Any, *, image_size: int | None = None) -> NDArray[np.float32]:
        """Features of samples, a row for each in the order of the samples.

        Args:
            data: As for :func:`ssl_lab.pretrain`: images, texts, files, a folder (in the order of its paths) or a Dataset.
                Texts longer than the run's rows are cut off there.
            image_size: What images that differ in size are resized to.

        Returns:
            float32 (N, D).

        Raises:
            ValueError: If the run's encoder cannot read them, or features are not finite.
        """
        given = recognise(data, image_size=image_size)
        batches = given.batches(self.data, self._opened.spec)
        return features_in_order(self.method.features, batches, self.method)

    def predict(self, data: Any, **settings: Any) -> list[dict[str, Any]]:
        """Predict samples with the head of a fine-tuned run, one dict for each in their order.

        Args:
            data: As for :meth:`embed`; for samples of several parts dicts or tuples, such as
                ``{"question": ..., "text": ...}``.
            **settings: ``columns=`` of tables and ``batch_size=``, see :func:`ssl_lab.cli.using.predict`.

        Returns:
            By the task ``prediction`` and ``probabilities``, ``tags``, ``answer``, ``translation`` or ``mask``.

        Raises:
            ValueError: If the run has no head, or a sample cannot be read.
        """
        from ssl_lab.cli.using import predict

        with as_command("predict", self._args):
            return predict(self.dir, _samples(data), trust=self._trust, **settings)

    def neighbours(self, query: Any, among: Any, *, k: int = 10, **settings: Any) -> list[dict[str, Any]]:
        """The samples most similar to each query by cosine similarity of the features, as ``ssl-lab neighbours`` finds them.

        Args:
            query: One sample or several, as for :meth:`predict`.
            among: The samples to compare with.
            k: Number of neighbours of each query.
            **settings: ``columns=`` of tables, see :func:`ssl_lab.cli.using.neighbours`.

        Returns:
            Rows with ``query``, ``rank`` from 1, ``similarity``, ``name`` (the path or number of the sample) and for texts
            ``text``. A file is not its own neighbour.

        Raises:
            ValueError: If a sample cannot be read, or ``k`` is not positive.
        """
        from ssl_lab.cli.using import neighbours

        with as_command("neighbours", self._args):
            return neighbours(self.dir, _samples(query), _samples(among), k=k, trust=self._trust, **settings)

    def evaluate(
        self, data: Any = None, *, labels: Any = None, image_size: int | None = None, **settings: Any
    ) -> Results:
        """Judge the run, on its own or on other data, as ``ssl-lab evaluate`` does.

        Args:
            data: As for :func:`ssl_lab.pretrain`; None for the run's own.
            labels: A label for each sample.
            image_size: What images that differ in size are resized to.
            **settings: Settings of the command, such as ``evaluation="features"`` or ``split="val"``.

        Returns:
            Metrics by row. They are written beside the run's, as by the command.
        """
        from ssl_lab.cli.commands.evaluate import judged

        args = overrides_of({"run": self.dir, **_data_settings(data, labels, image_size), **settings})
        table, _ = run_command("evaluate", args, judged, trust=self._trust)
        return Results(table)

    def finetune(
        self,
        data: Any,
        labels: Any = None,
        *,
        epochs: int | None = None,
        image_size: int | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> Run:
        """Fine-tune the encoder on labels, as ``ssl-lab finetune`` does.

        Args:
            data: As for :func:`ssl_lab.pretrain`; a test split is cut from it if it has none.
            labels: A label for each sample; a Dataset's own are found.
            epochs: ``trainer.max_epochs``.
            image_size: What images that differ in size are resized to.
            run_dir: Where to; by default a new directory below ``runs/finetune``. The same one resumes.
            **settings: Settings of the command: ``task=``, ``seeds=[0, 1]``, ``optim__lr=...``. The task is the one that the
                data are made for unless they say otherwise.

        Returns:
            The run of the first seed, whose ``results`` are those of the test split; all seeds stand in ``finetune.json``.
        """
        from ssl_lab.cli.commands.finetune import run as finetune

        given = recognise(data, labels=labels, image_size=image_size)
        chosen: dict[str, Any] = {"run": self.dir}
        if given.task is not None and "task" not in settings:
            chosen["task"] = given.task
        if epochs is not None:
            chosen["trainer.max_epochs"] = epochs
        if run_dir is not None:
            chosen["run_dir"] = run_dir
        args = [*overrides_of({**chosen, **given.settings(), **settings})]

        def train(cfg: Any) -> Path:
            finetune(cfg, args)
            return Path(cfg.run_dir, "pretrained", f"seed_{cfg.seeds[0]}")

        return Run(run_command("finetune", args, train, trust=self._trust), trust=self._trust, args=self._args)

    def report(self) -> Path:
        """Write the report page; its path."""
        from ssl_lab.report.page import write_report

        return write_report(self.dir)

    def export(self, out: str | os.PathLike[str], *, format: str = "hf", **settings: Any) -> Path:
        """Write the model for other tools, as ``ssl-lab export`` does; the folder.

        Args:
            out: The folder.
            format: ``hf`` for transformers, ``timm``, ``onnx`` or ``torch_export``.
            **settings: Further settings of the command, such as ``overwrite=True``.
        """
        from ssl_lab.cli.commands.export import run as export

        args = overrides_of({"run": self.dir, "out": out, "format": format, **settings})
        run_command("export", args, lambda cfg: export(cfg, args), trust=self._trust)
        return Path(out)

    def __repr__(self) -> str:
        """Show the directory, method, data, steps and results."""
        from ssl_lab.runs.directory import read_json

        summary = read_json(self.dir / "summary.json")
        words = [summary.get("method"), "on", summary.get("data"), summary.get("status")]
        described = " ".join(str(word) for word in words if word)
        steps = f", step {summary['step']:,}" if isinstance(summary.get("step"), int) else ""
        head = f"Run({str(self.dir)!r})  {described}{steps}"
        use = (
            "use .embed(x) .predict(x) .neighbours(x, among) .evaluate() .finetune(x, y) .export(folder) "
            ".report() .encoder .results"
        )
        table = repr(self.results) if self.results else ""
        return "\n".join(filter(None, [head, table, self.verdict, use]))


def _samples(data: Any) -> Any:
    return data if isinstance(data, str | os.PathLike | list | dict) else recognise(data).samples()


def _data_settings(data: Any, labels: Any, image_size: int | None) -> dict[str, Any]:
    if data is None:
        if labels is not None:
            raise ValueError("Cannot use labels= without data: the run's own data have theirs. Give data and labels.")
        return {}
    return recognise(data, labels=labels, image_size=image_size).settings()


def open_run(run_dir: str | os.PathLike[str], *, trust: bool = False) -> Run:
    """A run of the command or of :func:`ssl_lab.pretrain`, for use in Python.

    Args:
        run_dir: The run directory.
        trust: Allow classes that are not ssl_lab's own, which its ``config.yaml`` names; for runs of people you trust.

    Raises:
        FileNotFoundError: If the directory is no run or has no checkpoint.
        ValueError: If its configuration names what could run code; nothing of it is imported then.
    """
    from ssl_lab.cli.build import judged_checkpoint, read_setup

    with as_command("evaluate", [], trust=trust):
        read_setup(Path(run_dir))
        judged_checkpoint(Path(run_dir))
    return Run(run_dir, trust=trust)
