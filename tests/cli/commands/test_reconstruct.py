"""Samples, reconstructions and interpolations of finished runs."""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lab.cli import build as config
from ssl_lab.cli.data_of_run import data_for_run
from ssl_lab.cli.main import main
from ssl_lab.files import temporary_name
from ssl_lab.generate.sample_files import SampleFiles

CPU = torch.device("cpu")
SMALL = ["data.batch_size=512", "trainer=smoke"]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_LAB_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def vae(folder):
    small = ["encoder.widths=[8]", "method.decoder.width=8", "evaluate_every_n_epochs=1"]
    assert main(["pretrain", "method=vae", *small, *SMALL, "evaluation=none", f"run_dir={folder / 'vae'}"]) == 0
    return folder / "vae"


@pytest.fixture(scope="module")
def gan(folder):
    small = ["encoder=dcgan", "encoder.width=8", "method.generator.width=8", "optim=gan_adam"]
    assert main(["pretrain", "method=gan", *small, *SMALL, "evaluation=none", f"run_dir={folder / 'gan'}"]) == 0
    return folder / "gan"


@pytest.fixture(scope="module")
def simclr(folder):
    small = ["encoder.widths=[8]", "evaluation=none", f"run_dir={folder / 'simclr'}"]
    assert main(["pretrain", "method=simclr", *small, *SMALL]) == 0
    return folder / "simclr"


def run(capsys, *args):
    capsys.readouterr()
    assert main([str(arg) for arg in args]) == 0
    return capsys.readouterr().out


def refused(capsys, *args):
    capsys.readouterr()
    assert main([str(arg) for arg in args]) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "Traceback" not in errors
    return errors


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_leaves_pictures_of_what_it_generates_and_an_animation(vae):
    names = {path.name for path in (vae / "pictures").iterdir()}
    assert {"samples", "reconstructions", "interpolations", "traversals", "nearest_neighbours"} <= names
    assert len(list((vae / "pictures/traversals").glob("step_*.png"))) == 2
    with Image.open(vae / "pictures/samples/animation.gif") as gif:
        assert gif.n_frames == 2
    page = (vae / "report.html").read_text()
    for words in ("Latent dimensions", "Nearest train images", "In motion"):
        assert words in page


def test_a_png_file_is_one_grid(vae, tmp_path, capsys):
    assert run(capsys, "sample", f"run={vae}").strip() == str(vae / "samples.png")
    run(capsys, "sample", f"run={vae}", "num_samples=20", "seed=1", f"out={tmp_path / 'grid.png'}")
    assert pixels(tmp_path / "grid.png").shape == (2 * 48 + 2, 16 * 50 - 2, 3)


def test_a_folder_holds_each_sample_as_the_method_draws_it(vae, tmp_path, capsys):
    out = tmp_path / "many"
    assert run(capsys, "sample", f"run={vae}", "num_samples=260", f"out={out}").strip() == f"260 samples: {out}"
    assert sorted(path.name for path in out.glob("*.png")) == [f"{k:08d}.png" for k in range(260)]
    run(capsys, "sample", f"run={vae}", "num_samples=260", f"out={tmp_path / 'npz'}", "format=npz")
    stored = np.concatenate([np.load(path)["images"] for path in sorted((tmp_path / "npz").glob("*.npz"))])
    assert stored.shape == (260, 8, 8, 1) and stored.dtype == np.uint8
    assert all((pixels(out / f"{k:08d}.png") == stored[k, :, :, 0]).all() for k in (0, 100, 249, 250, 259))
    assert len(np.unique(stored.reshape(260, -1), axis=0)) == 260
    run(capsys, "sample", f"run={vae}", "num_samples=10", "seed=5", f"out={tmp_path / 'other'}")
    assert pixels(tmp_path / "other/00000000.png").tolist() != stored[0, :, :, 0].tolist()


def test_any_number_of_processes_writes_the_same_files(vae, tmp_path, capsys, monkeypatch):
    run(capsys, "sample", f"run={vae}", "num_samples=600", f"out={tmp_path / 'one'}")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        said = run(capsys, "sample", f"run={vae}", "num_samples=600", f"out={tmp_path / 'two'}")
        assert f"{(350, 250)[rank]} samples by process {rank} of 2" in said
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_more_samples_go_on_behind_those_there_are(vae, tmp_path, capsys):
    run(capsys, "sample", f"run={vae}", "num_samples=270", f"out={tmp_path / 'all'}")
    run(capsys, "sample", f"run={vae}", "num_samples=30", f"out={tmp_path / 'more'}")
    run(capsys, "sample", f"run={vae}", "num_samples=270", f"out={tmp_path / 'more'}")
    assert contents(tmp_path / "all") == contents(tmp_path / "more")


KILLED = """
import os, signal, sys
from ssl_lab.cli.main import main

replace = os.replace
def counted(source, target):
    replace(source, target)
    if str(target).endswith("00000300.png"):
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = counted
main(sys.argv[1:])
"""


def test_a_killed_command_is_gone_on_with(vae, tmp_path, capsys):
    """SIGKILL within the second batch; what was finished stays as it is, and in the end nothing differs from without."""
    out = tmp_path / "killed"
    words = ["sample", f"run={vae}", "num_samples=600", f"out={out}"]
    assert subprocess.run([sys.executable, "-c", KILLED, *words]).returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in sorted(out.glob("0*.png"))}
    assert len(kept) == 301
    gone = out / temporary_name("00000301").replace(f"-{os.getpid()}.", "-4194305.")  # larger than any process number
    gone.write_bytes(b"half a file")
    assert run(capsys, *words).splitlines()[1:] == [f"600 samples: {out}"] and not gone.exists()
    assert all(time_ns == path.stat().st_mtime_ns for path, time_ns in list(kept.items())[:250])
    run(capsys, *words[:3], f"out={tmp_path / 'whole'}")
    assert contents(out) == contents(tmp_path / "whole")


def test_only_missing_batches_are_drawn(tmp_path):
    drawn = []

    def sample(number, generator):
        drawn.append(number)
        return torch.rand(number, 3, 4, 4, generator=generator)

    for format in ("png", "npz"):
        files = SampleFiles(tmp_path / format, num_samples=600, format=format, facts={})
        assert list(files.write(sample, CPU)) == [250, 500, 600] and drawn == [250, 250, 250]
        whole = contents(tmp_path / format)
        (tmp_path / format / ("00000300.png" if format == "png" else "00000250.npz")).unlink()
        assert list(files.write(sample, CPU)) == [250, 500, 600] and drawn == [250] * 4
        assert contents(tmp_path / format) == whole
        drawn.clear()


def test_reconstructions_stand_below_their_images(vae, tmp_path, capsys):
    out = tmp_path / "rows.png"
    assert run(capsys, "reconstruct", f"run={vae}", "num_images=20", f"out={out}").strip() == str(out)
    grid = pixels(out)
    assert grid.shape == (4 * 50 - 2, 16 * 50 - 2, 3)
    _, _, method = config.load_run(vae)
    images = data_for_run(*_run(vae), None).columns("test")["image"][:20]
    expected = method.capabilities()["reconstruct"]({"image": images})
    for k in (0, 15, 16, 19):
        top, left = 100 * (k // 16), 50 * (k % 16)
        assert (grid[top : top + 48 : 6, left : left + 48 : 6, 0] == images[k, 0].numpy()).all()
        drawn = grid[top + 50 : top + 98 : 6, left : left + 48 : 6, 0] / 255
        assert np.abs(drawn - expected[k, 0].numpy()).max() < 0.01
    assert (grid[100:, 200:] == 255).all(), "the rest of the last row is empty"
    run(capsys, "reconstruct", f"run={vae}")
    assert (vae / "reconstructions.png").is_file()


def _run(run_dir):
    cfg, spec, _ = config.load_run(run_dir)
    return cfg, run_dir, spec


def test_interpolations_lead_from_one_image_to_another(vae, tmp_path, capsys):
    out = tmp_path / "walk.png"
    run(capsys, "interpolate", f"run={vae}", "first=3", "second=7", "steps=5", f"out={out}")
    assert pixels(out).shape == (48, 5 * 50 - 2, 3)
    run(capsys, "interpolate", f"run={vae}", "first=3", "second=3", "steps=2", f"out={tmp_path / 'still.png'}")
    still, walk = pixels(tmp_path / "still.png"), pixels(out)
    assert (still[:, :48] == still[:, 50:]).all() and (still[:, :48] == walk[:, :48]).all()
    assert (walk[:, :48] != walk[:, 200:]).any()


def test_a_gan_is_walked_through_between_latents(gan, vae, tmp_path, capsys):
    grids = []
    for run_dir, seed in ((gan, 0), (gan, 0), (gan, 1), (vae, 1)):
        run(capsys, "interpolate", f"run={run_dir}", f"seed={seed}", f"out={tmp_path / 'walk.png'}")
        grids.append(pixels(tmp_path / "walk.png"))
    assert grids[0].shape == (48, 10 * 50 - 2, 3)
    assert (grids[0] == grids[1]).all() and (grids[0] != grids[2]).any()
    assert "encodes no images, so that first= and second= mean nothing" in refused(
        capsys, "interpolate", f"run={gan}", "first=0"
    )
    assert "GAN reconstructs no images. Give run= a run of a VAE" in refused(capsys, "reconstruct", f"run={gan}")


def test_label_and_truncation_reach_a_method_that_takes_them(vae, tmp_path, capsys, monkeypatch):
    from ssl_lab.methods.vae import VAE

    def sample(self, num_samples, generator=None, *, label=None, truncation=1.0):
        assert label.dtype == torch.int64
        return (label / 10 * truncation).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)

    monkeypatch.setattr(VAE, "sample", sample)
    out = tmp_path / "labelled"
    run(capsys, "sample", f"run={vae}", "label=3", "truncation=0.5", "num_samples=2", f"out={out}")
    assert (pixels(out / "00000001.png") == round(0.15 * 255)).all()
    assert "label: 3 there, 4 asked for" in refused(
        capsys, "sample", f"run={vae}", "label=4", "truncation=0.5", "num_samples=2", f"out={out}"
    )
    assert "Cannot draw label=10: the run's classes are 0 to 9" in refused(capsys, "sample", f"run={vae}", "label=10")


def test_wrong_wishes_are_one_message(vae, simclr, tmp_path, capsys):
    full = tmp_path / "full"
    full.mkdir()
    (full / "note.txt").write_text("mine")
    out = tmp_path / "some"
    run(capsys, "sample", f"run={vae}", "num_samples=5", f"out={out}")
    cases = {
        "samples of VAE take neither label nor truncation": ["sample", f"run={vae}", "label=3"],
        "Cannot use truncation=0.7: samples": ["sample", f"run={vae}", "truncation=0.7"],
        "There is no format 'jpg'": ["sample", f"run={vae}", "format=jpg", f"out={tmp_path / 'new'}"],
        "format=npz is that of the files in a folder": ["sample", f"run={vae}", "format=npz", "out=grid.png"],
        "the folder holds other files": ["sample", f"run={vae}", f"out={full}"],
        "seed: 0 there, 1 asked for": ["sample", f"run={vae}", "num_samples=5", "seed=1", f"out={out}"],
        "num_samples: 5 there, 4 asked for": ["sample", f"run={vae}", "num_samples=4", f"out={out}"],
        "Cannot draw num_samples=0": ["sample", f"run={vae}", "num_samples=0", f"out={tmp_path / 'none'}"],
        "SimCLR draws no images": ["sample", f"run={simclr}"],
        "SimCLR reconstructs no images": ["reconstruct", f"run={simclr}"],
        "SimCLR makes no images of latents": ["interpolate", f"run={simclr}"],
        "the test split has 449": ["reconstruct", f"run={vae}", "num_images=450"],
        "is a PNG file. Give out= a name that ends in .png": ["reconstruct", f"run={vae}", f"out={tmp_path / 'x.jpg'}"],
        "Give one or the other": ["interpolate", f"run={vae}", "first=0", "seed=1"],
        "Cannot draw steps=1": ["interpolate", f"run={vae}", "steps=1"],
        "Cannot walk from image 0 to 449: the test split has 0 to 448": ["interpolate", f"run={vae}", "second=449"],
        "The run was trained on": ["reconstruct", f"run={vae}", "data=shapes"],
    }
    for message, words in cases.items():
        assert message in refused(capsys, *words), message


def test_samples_are_judged_on_the_encoder_of_another_run(vae, simclr, capsys):
    few = "evaluation.samples.num_samples=50"
    run(capsys, "evaluate", f"run={vae}", "evaluation=samples", few, f"metric.encoder=run:{simclr}")
    assert re.search(r'"frechet/simclr_digits_[0-9a-f]{6}_n50"', (vae / "evaluation.json").read_text())
    assert "none takes an encoder (knn)" in refused(
        capsys,
        "evaluate",
        f"run={vae}",
        "+evaluation.knn._target_=ssl_lab.evaluation.probes.knn.KNN",
        "metric.encoder=run:x",
    )


def test_completion_knows_the_commands():
    from ssl_lab.cli.completion import completions

    assert completions("ssl-lab rec") == ["reconstruct"]
    assert "steps=" in completions("ssl-lab interpolate ste")


def test_ctrl_c_says_how_to_go_on(vae, tmp_path, capsys, monkeypatch):
    def stopped(self, *args, **settings):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(SampleFiles, "write", stopped)
    assert main(["sample", f"run={vae}", f"out={tmp_path / 'some'}"]) == 130
    assert "Run the same command again to continue after the finished files" in capsys.readouterr().err


def with_nan(run_dir, copy, part):
    """A copy of a run one of whose weights is not a number."""
    shutil.copytree(run_dir, copy)
    path = copy / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    name = next(name for name in checkpoint["state_dict"] if name.startswith(part) and name.endswith("weight"))
    checkpoint["state_dict"][name].view(-1)[0] = float("nan")
    torch.save(checkpoint, path)
    return copy


def test_pictures_that_are_not_finite_are_refused(vae, tmp_path, capsys):
    broken = with_nan(vae, tmp_path / "broken", "decoder")
    before = set(broken.rglob("*"))
    for command, what in (
        (["sample", "num_samples=4"], "Pixels of"),
        (["sample", "num_samples=4", f"out={tmp_path / 'many'}"], "Pixels of"),
        (["reconstruct"], "Reconstructions of"),
        (["interpolate"], "Pixels of"),
        (["interpolate", "seed=1"], "Pixels of"),
    ):
        told = refused(capsys, command[0], f"run={broken}", *command[1:])
        assert what in told and "not finite and cannot be shown" in told
    assert set(broken.rglob("*")) == before and not list(tmp_path.glob("many/*.png"))


def make_read_only(folder):
    """For this process and its children: by a mount, or, where that is not allowed, by having no rights."""
    libc = ctypes.CDLL(None, use_errno=True)
    place, new_namespace, private, bind, read_only = os.fsencode(folder), 0x20000, 1 << 18 | 1 << 14, 1 << 12, 1
    if os.geteuid() == 0:
        steps = [lambda: libc.unshare(new_namespace), lambda: libc.mount(b"none", b"/", None, private, None)]
        steps += [lambda: libc.mount(place, place, None, bind, None)]
        steps += [lambda: libc.mount(b"none", place, None, bind | read_only | 1 << 5, None)]
        if any(step() != 0 for step in steps):
            os.setuid(65534)


def test_a_run_that_is_read_only_is_evaluated_elsewhere(simclr, tmp_path, monkeypatch):
    words = ["evaluate", f"run={simclr}", "evaluation=label_free"]
    assert main([*words, f"out={tmp_path / 'before'}"]) == 0  # what is imported late is there for the child
    before = {path: path.stat().st_mtime_ns for path in simclr.rglob("*")}
    monkeypatch.setattr("ssl_lab.engine.judge.evaluate_with_baselines", lambda *args, **settings: os._exit(3))
    for given, code, told in (([], 1, "cannot be written to"), ([f"out={tmp_path / 'elsewhere'}"], 3, "")):
        child = os.fork()
        if child == 0:
            try:
                simclr.chmod(0o555)
                make_read_only(simclr)
                with (tmp_path / "told").open("w") as file, contextlib.redirect_stderr(file):
                    found = main([*words, *given])
            finally:
                os._exit(found)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
        error = (tmp_path / "told").read_text()
        assert told in error and ("out=FILE.json" in error) == (code == 1)
    simclr.chmod(0o755)
    assert before == {path: path.stat().st_mtime_ns for path in simclr.rglob("*")}
