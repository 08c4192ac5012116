"""What reaches other loggers than TensorBoard and W&B, through the adapter of their class."""

import csv
import json
import sys
import warnings

import numpy as np
import pytest
from arrays import ArrayImages
from engine.tiny import Tiny, TinyEncoder, trainer
from lightning.pytorch.loggers import CometLogger, CSVLogger, Logger, MLFlowLogger
from pages import ROOT, own_files

from ssl_lab.cli.trust.targets import check_targets, closed_list
from ssl_lab.engine.callbacks.pictures import Pictures
from ssl_lab.engine.logging.adapters import Adapter, adapter_of
from ssl_lab.engine.logging.dashboards import Dashboard
from ssl_lab.engine.logging.kept_id import KeptId
from ssl_lab.engine.pretrain import pretrain

OURS = {
    f"ssl_lab.engine.logging.{module}"
    for module in ("mlflow.MLflow", "trackio.Trackio", "comet.Comet", "aim.Aim", "weights_and_biases.WeightsAndBiases")
}


def fit(folder, logger):
    data = ArrayImages(num_samples=64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        method = Tiny(TinyEncoder(data.spec))
        pretrain(method, data, trainer(folder, epochs=2, logger=[logger]), pictures=Pictures(every_n_epochs=1))
    assert not [one for one in caught if "gets no more data" in str(one.message)]
    return sorted(str(path.relative_to(folder)) for path in folder.glob("pictures/*/*.png"))


def losses_of(run_dir):
    rows = csv.DictReader((run_dir / "metrics.csv").read_text().splitlines())
    return {int(row["step"]): float(row["train/loss"]) for row in rows if row["train/loss"]}


@pytest.fixture
def page_logger(tmp_path, monkeypatch):
    """The logger of the page, with its adapter."""
    (tmp_path / "folder_logger.py").write_text(own_files([ROOT / "docs/live.md"])["folder_logger.py"])
    monkeypatch.syspath_prepend(tmp_path)
    from folder_logger import FolderLogger

    yield FolderLogger
    sys.modules.pop("folder_logger")


def test_the_logger_of_the_page_gets_every_picture_scalar_and_setting(tmp_path, page_logger):
    logger = page_logger(str(tmp_path / "board"))
    drawn = fit(tmp_path / "run", logger)
    found = list((tmp_path / "board").rglob("*.png"))
    assert drawn and len(found) == len(drawn)
    Dashboard(logger).log_hyperparams({"method": {"temperature": 0.5}})
    lines = [json.loads(line) for line in (tmp_path / "board/log.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}
    assert losses == losses_of(tmp_path / "run")
    assert {"method": {"temperature": 0.5}} in lines


def test_a_logger_without_an_adapter_gets_scalars_and_pictures_cost_nothing(tmp_path):
    drawn = fit(tmp_path / "run", CSVLogger(tmp_path / "own"))
    assert drawn and "train/loss" in next(tmp_path.glob("own/**/metrics.csv")).read_text()


def test_a_subclass_has_the_adapter_of_the_nearest_base():
    class Mine(CSVLogger):
        pass

    class Yours(Mine):
        pass

    class MineAdapter(Adapter):
        pass

    adapter_of.register(Mine, MineAdapter)
    assert type(adapter_of(Yours("x"))) is MineAdapter and type(adapter_of(CSVLogger("x"))) is Adapter
    for lightning in (MLFlowLogger, CometLogger):
        assert adapter_of.dispatch(lightning) is not adapter_of.dispatch(Logger)


def test_settings_may_name_the_loggers_of_the_groups_and_no_others():
    assert closed_list() >= OURS
    assert {target for target in closed_list() if target.startswith("ssl_lab.engine.logging")} == OURS
    for target in ("lightning.pytorch.loggers.MLFlowLogger", "aim.pytorch_lightning.AimLogger", "trackio.init"):
        with pytest.raises(ValueError, match="not a class that ssl_lab may build"):
            check_targets({"logger": {"x": {"_target_": target}}}, "config.yaml", data=True)


def test_an_id_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    kept = KeptId(tmp_path, "mlflow")
    kept.keep("first")

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", killed)
    monkeypatch.setattr("os.replace", killed)
    monkeypatch.setattr("os.rename", killed)
    with pytest.raises(KeyboardInterrupt):
        kept.keep("second")
    assert kept.read() == "first"


def test_an_id_that_is_none_is_refused(tmp_path):
    kept = KeptId(tmp_path, "mlflow")
    assert kept.read() is None
    kept.keep("ab12")
    assert KeptId(tmp_path, "mlflow").read() == "ab12"
    kept.forget()
    assert kept.read() is None
    kept.path.write_text("../other")
    with pytest.raises(ValueError, match=r"Cannot read the id in .*found '\.\./other'"):
        KeptId(tmp_path, "mlflow").read()


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store of MLflow in files, which begins faster than a database."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "false")
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    return mlflow.MlflowClient()


def test_mlflow_has_every_scalar_picture_and_setting_and_a_resumed_run_continues(tmp_path, store):
    from ssl_lab.engine.logging.mlflow import MLflow

    made = {"run_dir": str(tmp_path / "run"), "project": "tests", "group": "sweep"}
    drawn = fit(tmp_path / "run", MLflow(**made))
    id = (tmp_path / "run/mlflow/id.txt").read_text()
    run = store.get_run(id)
    assert run.info.status == "FINISHED" and run.data.tags["group"] == "sweep"
    images = [file.path for file in store.list_artifacts(id, "images") if file.path.endswith(".png")]
    assert drawn and len(images) == len(drawn)
    losses = {metric.step: metric.value for metric in store.get_metric_history(id, "train/loss")}
    assert losses == losses_of(tmp_path / "run")

    board = Dashboard(MLflow(**made))
    board.log_hyperparams({"optim": {"lr": 0.1}})
    board.log_hyperparams({"optim": {"lr": 0.2, "name": "lion"}})
    board.sentences("words", "one\n\ntwo", 9)
    board.finish(failed=True)
    run = store.get_run(id)
    assert run.data.params == {"optim.lr": "0.1", "optim.name": "lion"} and run.data.tags["changed.optim.lr"] == "0.2"
    assert run.info.status == "FAILED"
    assert [file.path for file in store.list_artifacts(id, "pictures/words")] == ["pictures/words/step_00000009.md"]

    board = Dashboard(MLflow(**made))
    board.forget_from(3, changed=True)
    board.log_metrics({"train/loss": 1.0}, 3)
    board.image("views", np.zeros((4, 4, 3), dtype=np.uint8), 3)
    board.finish(failed=False)
    assert (tmp_path / "run/mlflow/id.txt").read_text() != id, "what has changed is a run of its own"


def test_a_store_of_the_folder_sends_pictures_nowhere(tmp_path, store, monkeypatch):
    from mlflow.tracking import set_tracking_uri

    from ssl_lab.engine.logging.mlflow import MLflow

    store.create_experiment("theirs", artifact_location="ftp://127.0.0.1:1/x")
    made = {"run_dir": str(tmp_path / "run"), "project": "theirs"}
    assert MLflow(**made).run_id, "the user's variable names the store"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    set_tracking_uri(f"file:{tmp_path}/mlruns")
    with pytest.warns(UserWarning, match=r"MLflow failed \(the store of this folder keeps pictures at ftp://127.0.0.1"):
        Dashboard(MLflow(**made)).log_metrics({"train/loss": 1.0}, 0)


def test_comet_settings_of_the_folder_send_the_key_nowhere(tmp_path, monkeypatch):
    from ssl_lab.engine.logging.comet import Comet

    monkeypatch.chdir(tmp_path)
    (tmp_path / ".comet.config").write_text("[comet]\nurl_override=http://127.0.0.1:1\n")
    with pytest.raises(ValueError, match="Cannot use logger=comet: found .comet.config in this folder"):
        Comet(run_dir="run", project="p")
    (tmp_path / ".comet.config").unlink()
    (tmp_path / ".env").write_text("PORT=1\n  comet_url_override=http://127.0.0.1:1\n")
    with pytest.raises(ValueError, match="Cannot use logger=comet: .env in this folder sets comet_url_override"):
        Comet(run_dir="run", project="p")
