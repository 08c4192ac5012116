"""What reaches TensorBoard and W&B from real runs, and that neither of them can stop one."""

import csv
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
from pathlib import Path

import pytest
import wandb
from arrays import ArrayImages
from engine.logging.wandb_server import Server
from engine.tiny import Tiny, TinyEncoder, trainer
from forked import ssl_lab
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssl_lab.engine.beginning import Beginning
from ssl_lab.engine.callbacks.evaluation import Evaluation
from ssl_lab.engine.callbacks.pictures import Pictures
from ssl_lab.engine.checkpoints.saving import Saving
from ssl_lab.engine.logging.dashboards import Dashboard
from ssl_lab.engine.logging.weights_and_biases import WeightsAndBiases
from ssl_lab.engine.pretrain import pretrain
from ssl_lab.evaluation.geometry.label_free import RankMe

SETTINGS = ["trainer=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=2", "evaluate_every_n_epochs=1"]
IMAGES = [
    *("method=simclr", "encoder=vit_mae_tiny", "encoder.patch_size=2", "encoder.depth=1", "views@method.views=digits"),
    *("evaluation=features", "callbacks=online_probes", "data.batch_size=256"),
]
SCALARS = {
    *("train/loss", "train/feature_std", "train/feature_rank", "online/linear/top1", "online/knn/top1"),
    *("eval/knn/top1", "eval/rankme/rank", "eval/feature_std/mean", "test/linear/top1"),
    *("optim/lr", "optim/grad_norm"),
    *("perf/samples_per_sec", "perf/data_wait_frac", "perf/evaluation_frac", "perf/tflops", "perf/memory_gib"),
}
PICTURES = {f"pictures/{name}" for name in ("views", "neighbours", "feature_map", "attention", "projection")}


def run(*args, cwd):
    done = ssl_lab("pretrain", *SETTINGS, *args, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


def rows_of(run_dir):
    return list(csv.DictReader((run_dir / "metrics.csv").read_text().splitlines()))


def wandb_run(folder):
    """What a run on disk holds, by W&B's own reader."""
    (file,) = folder.glob("*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run of images with both dashboards."""
    folder = tmp_path_factory.mktemp("both")
    run(*IMAGES, "logger=[tensorboard,wandb]", "run_dir=run", "logger.wandb.artifacts=true", cwd=folder)
    return folder / "run"


def test_tensorboard_has_every_scalar_picture_and_the_projector(both):
    events = EventAccumulator(str(both / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert set(events.Tags()["scalars"]) >= SCALARS
    assert set(events.Tags()["images"]) == PICTURES
    steps = {name: [image.step for image in events.Images(name)] for name in PICTURES}
    assert steps["pictures/attention"] == steps["pictures/neighbours"] == [3, 7]
    last = json.loads((both / "evaluation.json").read_text())["rows"][-1]["metrics"]["linear/top1"]
    assert events.Scalars("test/linear/top1")[-1].value == pytest.approx(last, abs=1e-6)
    assert (both / "tensorboard/hparams.yaml").read_text().count("temperature: 0.2") == 1
    for name in PICTURES:  # the run directory has the same
        assert len(list((both / name).glob("step_*.png"))) == len(steps[name])
    (points,) = both.glob("tensorboard/*/features")
    labels = (points / "metadata.tsv").read_text().splitlines()
    assert len(labels) == len((points / "tensors.tsv").read_text().splitlines()) == 449
    assert set(labels) == set("0123456789")
    assert (points / "sprite.png").is_file()


def test_wandb_has_every_key_the_nested_configuration_and_the_artifacts(both):
    (folder,) = both.glob("wandb/offline-run-*")
    found = json.dumps(wandb_run(folder))
    for name in SCALARS | PICTURES:
        assert f'"{name}' in found, name
    raw = next(folder.glob("*.wandb")).read_bytes()
    assert b'{"temperature"' in raw or b'"temperature":' in raw
    assert b"checkpoint-" in raw and b"encoder-" in raw
    for tag in (b"simclr", b"digits", b"vit_mae_tiny"):
        assert tag in raw


def test_operations_are_counted_and_gradients_have_a_norm(both):
    rows = rows_of(both)
    tflops = [float(row["perf/tflops"]) for row in rows if row["perf/tflops"]]
    assert tflops and all(value > 0 for value in tflops)
    assert "perf/mfu" not in rows[0]  # a CPU's peak is on no data sheet
    assert all(float(row["optim/grad_norm"]) > 0 for row in rows if row["optim/grad_norm"])


class Failing(Logger):
    """Raises from the third call on."""

    name, version, calls = "failing", "", 0

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.calls += 1
        if self.calls > 2:
            raise ConnectionError("nobody answers")


def fit(folder, logger):
    data = ArrayImages(num_samples=64)
    method = Tiny(TinyEncoder(data.spec))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pretrain(method, data, trainer(folder, epochs=3, logger=logger))
    told = [str(one.message) for one in caught if "gets no more data" in str(one.message)]
    rows = rows_of(folder)
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"
    return told, rows


def test_a_logger_that_fails_is_one_warning_and_the_run_goes_on(tmp_path):
    logger = Failing()
    told, rows = fit(tmp_path / "failing", [logger])
    _, expected = fit(tmp_path / "alone", False)
    assert len(told) == 1 and "Failing failed (nobody answers)" in told[0]
    assert logger.calls == 3
    assert len(rows) == len(expected) and [row["step"] for row in rows] == [row["step"] for row in expected]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_tensorboard_on_a_full_disk_is_one_warning_and_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda *args: None)  # tensorboard's own thread ends with an error
    board = TensorBoardLogger(tmp_path / "board", name="", version="")
    with open("/dev/full", "wb", buffering=0) as full:
        board.experiment._get_file_writer().event_writer._async_writer._writer._writer = full
        told, rows = fit(tmp_path / "run", [board])
    assert len(told) == 1 and "No space left on device" in told[0]
    assert len(rows) > 2


def test_tensorboard_in_an_unusable_folder_is_one_warning_and_the_run_goes_on(tmp_path):
    (tmp_path / "board").write_text("a file, no folder")
    told, _ = fit(tmp_path / "run", [TensorBoardLogger(tmp_path / "board", name="", version="x")])
    assert len(told) == 1 and "TensorBoardLogger failed" in told[0]


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_pictures_stand_at_the_step_of_the_scalars_when_gradients_are_accumulated(tmp_path):
    board = TensorBoardLogger(tmp_path / "board", name="", version="")
    data = ArrayImages(num_samples=64)
    lightning = trainer(tmp_path / "run", epochs=2, logger=[board], accumulate_grad_batches=2)
    pretrain(Tiny(TinyEncoder(data.spec)), data, lightning, pictures=Pictures(every_n_epochs=1))
    events = EventAccumulator(str(tmp_path / "board"), size_guidance={"images": 0})
    events.Reload()
    losses, drawn = events.Scalars("train/loss"), events.Images("pictures/feature_map")
    assert drawn[-1].step == losses[-1].step == lightning.global_step - 1 < lightning.fit_loop.total_batch_idx
    assert json.loads((tmp_path / "run/summary.json").read_text())["step"] == lightning.global_step
    assert (tmp_path / f"run/pictures/feature_map/step_{lightning.global_step:08d}.png").is_file()


@pytest.mark.filterwarnings("ignore")
def test_a_map_that_cannot_be_drawn_costs_the_picture_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("ssl_lab.engine.feature_map.projection", lambda *_: 1 / 0)
    data = ArrayImages(num_samples=64)
    with pytest.warns(UserWarning, match="map of the features could not be drawn"):
        pretrain(Tiny(TinyEncoder(data.spec)), data, trainer(tmp_path), evaluation=Evaluation([RankMe()]))
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "finished"


class LooksAtTheEnd(Failing):
    """Remembers the status that the run directory tells when the logger is finished."""

    def __init__(self, run_dir):
        super().__init__()
        self.run_dir = run_dir

    def finalize(self, status):
        self.seen = json.loads((self.run_dir / "summary.json").read_text())["status"]


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_how_a_run_has_ended_is_written_before_loggers_are_waited_for(tmp_path):
    class Stops(Callback):
        def on_train_batch_end(self, *args):
            raise KeyboardInterrupt

    logger, data = LooksAtTheEnd(tmp_path), ArrayImages(num_samples=64)
    with pytest.raises(KeyboardInterrupt):
        pretrain(Tiny(TinyEncoder(data.spec)), data, trainer(tmp_path, Stops(), logger=[logger]))
    assert logger.seen == "interrupted"


WANDB = ["logger=wandb", "evaluation=none", "pictures_every_n_epochs=null", "run_dir=run"]


@pytest.mark.slow
def test_wandb_may_go_away_in_mid_run(tmp_path, monkeypatch):
    server = Server(num_file_streams=1)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("SSL_LAB_WANDB_TIMEOUT_SEC", "5")
    done = run(*IMAGES, *WANDB, cwd=tmp_path)
    assert any("file_stream" in path for path, _ in server.requests)
    assert done.stderr.count("gets no more data") == 1 and "wandb sync" in done.stderr
    rows = rows_of(tmp_path / "run")
    assert [int(row["step"]) for row in rows] == [1, 3, 5, 7]


@pytest.mark.slow
def test_wandb_that_cannot_be_reached_goes_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("SSL_LAB_WANDB_TIMEOUT_SEC", "5")
    done = run(*IMAGES, *WANDB, cwd=tmp_path)
    assert done.stderr.count("Warning:") == 1 and "goes offline" in done.stderr
    (folder,) = Path(tmp_path, "run/wandb").glob("offline-run-*")
    assert '"train/loss' in json.dumps(wandb_run(folder))
    assert folder.name.endswith(Path(tmp_path, "run/wandb/id.txt").read_text())


def test_wandb_keeps_the_id_of_a_run_that_is_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    found = set()
    for loss in (2.0, 1.0):
        board = Dashboard(WeightsAndBiases(run_dir=str(tmp_path), project="x", group="sweep", tags=["simclr"]))
        board.log_metrics({"train/loss": loss}, 1)
        found.add((board.version, board.logger.experiment.group, *board.logger.experiment.tags))
        board.finish(failed=False)
    assert found == {((tmp_path / "wandb/id.txt").read_text(), "sweep", "simclr")}


def wandb_rows(file):
    """The loss by step of a W&B file, by W&B's own reader."""
    core = str(Path(wandb.__file__).parent / "bin/wandb-core")
    command = [core, "leet", "inspect", "-no-observability", "-json", "-run-file", str(file), str(file.parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert all(row["_step"] == row["trainer/global_step"] for row in rows)
    return {row["_step"]: row["train/loss"] for row in rows}


class Crash(Callback):
    """Ends the process's work with an error after so many steps."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            raise ConnectionError("crash")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changes", [[], ["method.repel: 0.0, now 1.0"]], ids=["same", "forced"])
def test_each_step_is_shown_once_after_a_crash_and_the_later_life_counts(changes, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    data = ArrayImages(num_samples=64)

    def live(*callbacks, repel=0.0, **settings):
        boards = [
            TensorBoardLogger(tmp_path / "board", name="", version=""),
            WeightsAndBiases(run_dir=str(tmp_path), project="x"),
        ]
        method = Tiny(TinyEncoder(data.spec), repel=repel)
        lightning = trainer(tmp_path, *callbacks, epochs=4, logger=boards)
        cadences = {"saving": Saving(every_n_steps=4), "pictures": Pictures(every_n_epochs=None)}
        pretrain(method, data, lightning, **cadences, **settings)
        return lightning.global_step

    with pytest.raises(ConnectionError):
        live(Crash(7))
    first = [row["train/loss"] for row in rows_of(tmp_path)]
    beginning = Beginning(tmp_path, waits=bool(changes), forced=bool(changes), changes=changes)
    checkpoint = tmp_path / "checkpoints/last.ckpt"
    last = live(repel=float(len(changes)), ckpt_path=checkpoint, beginning=beginning)
    rows = rows_of(tmp_path)
    assert [int(row["step"]) for row in rows] == list(range(last)) and last > 7
    assert (rows[5]["train/loss"] == first[5]) is (not changes)
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    shown = events.Scalars("train/loss")
    assert [scalar.step for scalar in shown] == list(range(last))
    assert [scalar.value for scalar in shown] == pytest.approx([float(row["train/loss"]) for row in rows])
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)
    earlier, later = map(wandb_rows, files)
    assert list(later) == list(range(4, last)) and set(range(6)) <= set(earlier)
    assert list(later.values()) == pytest.approx([float(row["train/loss"]) for row in rows[4:]])
    assert (earlier[5] == later[5]) is (not changes), "what has changed is a W&B run of its own"
    assert len({file.stem for file in files}) == 1 + len(changes)


@pytest.mark.slow
def test_tensorboard_shows_scalars_and_pictures_in_a_browser_and_serves_the_projector(both):
    sync_api = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("needs chromium")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(both / "tensorboard"), "--load_fast=false"]
    server = subprocess.Popen([*command, "--host=127.0.0.1", f"--port={port}"], stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1400, "height": 2000})
            page.set_default_timeout(60_000)
            for tab, shown in {"timeseries": "eval/knn", "images": "pictures/attention"}.items():
                page.goto("about:blank")
                page.goto(f"http://127.0.0.1:{port}/#{tab}", wait_until="commit")
                page.get_by_text(shown).first.wait_for(state="attached")
            browser.close()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/plugin/projector/info?run=.", timeout=60) as answer:
            (points,) = json.load(answer)["embeddings"]
        assert points["metadataPath"] and points["sprite"]["imagePath"]
    finally:
        server.terminate()
        server.wait()


def wait_for(port):
    for _ in range(300):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(port)


@pytest.mark.parametrize("line", ["base_url = http://127.0.0.1:1", "api_key = 0123", "mode = online"])
def test_wandb_settings_of_the_folder_send_the_key_nowhere(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/settings").write_text(f"[default]\nproject = mine\n{line}\n")
    with pytest.raises(ValueError, match=f"wandb/settings of this folder sets {line.split()[0]}"):
        WeightsAndBiases(run_dir="run", project="p")
