"""A thousand runs that real writers have written, in sweeps whose settings matter, with pictures and a running one."""

import random

import yaml
from cli.made_runs import OBJECTIVE, make_many, make_run
from report.fake_runs import write_picture

HOSTILE = "<img src=x onerror=\"window.hacked = 1\"> & 'co'"


def configure(path, **settings):
    """Give a run a configuration of its own."""
    config = {"seed": 0, "objective": OBJECTIVE, "run_dir": str(path), "data": {"batch_size": 256}, "method": {}}
    for key, value in settings.items():
        group, _, name = key.rpartition("__")
        (config.setdefault(group, {}) if group else config)[name] = value
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


def make_lab(root, num):
    """``num`` runs as of ``make_many``, and three: one that runs, one that failed, one with a hostile name."""
    make_many(root, num)
    rng = random.Random(0)
    for path in sorted(root.glob("*/*/*")) + sorted(root.glob("*/run_*")):
        if (path / "config.yaml").is_file():
            seed = int(path.name.rpartition("=")[2].rpartition("_")[2])
            temperature = (0.1, 0.2, 0.5)[seed // 2 % 3]
            drawn = {"optim__lr": round(10 ** rng.uniform(-4, -2), 6), "method__weight": round(rng.random(), 6)}
            configure(path, seed=seed % 5, method__temperature=temperature, **drawn)
    for k, path in enumerate(sorted(root.glob("simclr_digits/run_*"))[:3]):
        for step in (100, 200):
            write_picture(path / "pictures" / "samples" / f"step_{step:08d}.png", seed=step + k)
    live = make_run(root / "live", status="running", beat=1, experiment="live_run", age=1)
    failed = make_run(root / "broken", status="failed", experiment="broken_run", error="Loss is NaN\nat step 7", age=2)
    hostile = make_run(root / "hostile", experiment=HOSTILE, age=3, method=HOSTILE)
    for path in (live, failed, hostile):
        configure(path, seed=1, method__temperature=0.3, method__name=HOSTILE)
    return root
