"""Run directories as the engine writes them, with plausible curves and pictures but without any training."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

STEPS = 600
SENTENCE = [
    {"text": "[CLS]", "guess": None, "correct": None},
    {"text": "the", "guess": None, "correct": None},
    {"text": "function", "guess": "function", "correct": True},
    {"text": "re", "guess": None, "correct": None},
    {"text": "##turn", "guess": "##turn", "correct": True},
    {"text": "##s", "guess": None, "correct": None},
    {"text": "a", "guess": None, "correct": None},
    {"text": "tuple", "guess": "list", "correct": False},
    {"text": "(", "guess": None, "correct": None},
    {"text": "see", "guess": None, "correct": None},
    {"text": "below", "guess": "above", "correct": False},
    {"text": ")", "guess": None, "correct": None},
    {"text": ",", "guess": None, "correct": None},
    {"text": "and", "guess": "and", "correct": True},
    {"text": "it", "guess": None, "correct": None},
    {"text": "doesn", "guess": None, "correct": None},
    {"text": "'", "guess": None, "correct": None},
    {"text": "t", "guess": None, "correct": None},
    {"text": "fail", "guess": None, "correct": None},
    {"text": ".", "guess": None, "correct": None},
    {"text": "[SEP]", "guess": None, "correct": None},
]


def probe_scores(top1: float, few: tuple[float, float, float]) -> dict[str, float]:
    """Metrics of one row of the feature table."""
    scores = {"knn/top1": top1 - 0.01, "knn/macro_f1": top1 - 0.012, "knn/recall": top1 - 0.011}
    scores |= {"linear/top1": top1, "linear/macro_f1": top1 - 0.002, "linear/recall": top1 - 0.001}
    for num, value in zip((1, 5, 10), few, strict=True):
        scores |= {f"few_label/top1_n{num}": value, f"few_label/top1_n{num}_std": 0.04 / num}
    return scores


def simclr_evaluation() -> dict[str, Any]:
    """An evaluation with a feature table alone."""
    return {
        "data": "Digits",
        "split": "test",
        "rows": [
            {"name": "raw pixels", "metrics": probe_scores(0.964, (0.652, 0.853, 0.905))},
            {"name": "random encoder", "metrics": probe_scores(0.957, (0.648, 0.861, 0.911))},
            {"name": "SimCLR encoder", "metrics": probe_scores(0.988, (0.851, 0.957, 0.969))},
        ],
    }


def mlm_evaluation() -> dict[str, Any]:
    """An evaluation of hidden words."""
    masked = {
        "masked/accuracy": 0.412,
        "masked/perplexity": 31.52,
        "masked/loss": math.log(31.52),
        "masked/unigram_perplexity": 402.1,
        "masked/unigram_accuracy": 0.061,
    }
    return {"data": "PythonDocs", "split": "test", "rows": [{"name": "MaskedLM encoder", "metrics": masked}]}


def vae_evaluation() -> dict[str, Any]:
    """An evaluation with features, likelihood and samples."""
    shares = (0.12, 0.05, 0.11, 0.13, 0.10, 0.09, 0.11, 0.12, 0.06, 0.11)
    generative = {
        "elbo/elbo": -21.37,
        "elbo/reconstruction": 15.02,
        "elbo/kl": 6.35,
        "elbo/bits_per_dim": 0.4817,
        "elbo/baseline_bits_per_dim": 0.6021,
        "frechet/pixels_n2000": 1.832,
        "frechet/pixels_n2000_real": 0.211,
        "kid/pixels_n2000": 0.01312,
        "kid/pixels_n2000_real": 0.00021,
        "samples/min_class_share": min(shares),
        "samples/judge_top1": 0.964,
    }
    generative |= {f"samples/class_share_{k}": share for k, share in enumerate(shares)}
    evaluation = simclr_evaluation()
    evaluation["rows"][2] = {"name": "VAE encoder", "metrics": probe_scores(0.971, (0.712, 0.9, 0.931)) | generative}
    return evaluation


def write_run(
    run_dir: Path,
    *,
    method: str = "SimCLR",
    seed: int = 0,
    evaluation: Mapping[str, Any] | None = None,
    parts: tuple[str, ...] = (),
    settings: Mapping[str, Any] | None = None,
    pictures: tuple[str, ...] = ("views", "projection"),
    sentences: bool = False,
    data: str = "Digits",
) -> Path:
    """Write a finished run and return its directory."""
    evaluation = evaluation or simclr_evaluation()
    run_dir.mkdir(parents=True)
    config = {
        "seed": seed,
        "objective": "eval/linear/top1",
        "run_dir": str(run_dir),
        "data": {"_target_": f"ssl_lab.data.image.digits.{data}", "batch_size": 256},
        "encoder": {"_target_": "ssl_lab.encoders.conv_net.ConvNet", "width": 32},
        "method": {"_target_": f"ssl_lab.methods.{method.lower()}.{method}", "temperature": 0.2, **(settings or {})},
        "trainer": {"max_epochs": 100, "accelerator": "cpu"},
        "evaluation": {"knn": {"num_neighbors": [20]}},
    }
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (run_dir / "overrides.yaml").write_text(yaml.safe_dump([f"method={method.lower()}", "trainer.max_epochs=100"]))
    (run_dir / "evaluation.json").write_text(json.dumps(evaluation))
    last = evaluation["rows"][-1]["metrics"]
    summary = {
        "status": "finished",
        "error": None,
        "experiment": f"{method.lower()}_{data.lower()}",
        "method": method,
        "data": data,
        "encoder": "ConvNet",
        "seed": seed,
        "step": STEPS,
        "epoch": 100,
        "objective": {"name": "eval/linear/top1", "value": last.get("linear/top1")},
        "metrics": {"train/loss": 1.1},
        "versions": {"ssl_lab": "0.1.0", "torch": "2.15.0", "lightning": "2.6.6", "python": "3.11.7"},
        "commit": "3f2c1ab",
        "hardware": "2 x CPU",
        "num_parameters": 288_704,
        "num_train_samples": 1_437,
        "started": "2026-03-04T10:21:07+00:00",
        "wall_time_sec": 61.2,
        "training_time_sec": 52.31,
        "samples_per_sec": 2_764.2,
    }
    (run_dir / "summary.json").write_text(json.dumps(summary))
    _write_metrics(run_dir / "metrics.csv", seed, parts, last)
    for name in pictures:
        for step in range(100, STEPS + 1, 100):
            write_picture(run_dir / "pictures" / name / f"step_{step:08d}.png", seed=step)
    if sentences:
        folder = run_dir / "pictures" / "masked_sentences"
        folder.mkdir(parents=True)
        for step in (300, STEPS):
            (folder / f"step_{step:08d}.json").write_text(json.dumps([SENTENCE, SENTENCE]))
    return run_dir


def write_picture(path: Path, *, seed: int = 0) -> Path:
    """Write a grid of ten by four soft blots."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_blots(seed))
    return path


@cache
def _blots(seed: int) -> bytes:
    rng = random.Random(seed)
    image = Image.new("L", (160, 64))
    for x in range(0, 160, 16):
        for y in range(0, 64, 16):
            cx, cy, r = rng.uniform(5, 11), rng.uniform(5, 11), rng.uniform(2, 5)
            for i in range(16):
                for j in range(16):
                    image.putpixel((x + i, y + j), int(255 * math.exp(-((i - cx) ** 2 + (j - cy) ** 2) / r**2)))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def _write_metrics(path: Path, seed: int, parts: tuple[str, ...], last: Mapping[str, float]) -> None:
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for step in range(6, STEPS + 1, 6):
        progress = step / STEPS
        loss = 1.1 + 4 * math.exp(-5 * progress) + rng.gauss(0, 0.06)
        row: dict[str, Any] = {"step": step, "epoch": step // 6, "train/loss": loss}
        row |= {f"train/{part}": loss / (k + 2) for k, part in enumerate(parts)}
        row["optim/lr"] = 1e-3 * min(1, 10 * progress) * (0.5 + 0.5 * math.cos(math.pi * progress))
        row["perf/samples_per_sec"] = 2750 + rng.gauss(0, 60)
        row["perf/data_wait_frac"] = 0.02 + abs(rng.gauss(0, 0.004))
        rows.append(row)
        if step % 60 == 0:  # the evaluation writes a row of its own
            gain = 1 - math.exp(-4 * progress)
            scores = {
                f"eval/{name}": last[name] * (1 if "unigram" in name or "baseline" in name else 0.8 + 0.2 * gain)
                for name in last
            }
            rows.append({"step": step, "epoch": step // 6, **scores})
    columns = ["step", "epoch", *dict.fromkeys(key for row in rows for key in row if key not in ("step", "epoch"))]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
