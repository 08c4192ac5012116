"""Kill runs at random moments with random signals, start them again, and compare every bit with runs that were left alone.

    python tests/soak/kills.py --kills 100 --seed 0

Each method is trained once in peace, with evaluations on. Then the same command runs in a new directory and is killed again
and again: a third of the times at any moment from its start on, a third in the last quarter of its time, where it is judged,
and otherwise at a moment of its training. After a given number of kills it is left to finish. Every file must be as in peace:
weights, optimizers, random streams, position in the data, metrics, evaluation, summary, configuration, pictures and report to
the last bit, times within reason, and nothing left over. Signals, moments and seeds are printed.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from soak.commands import write_text  # noqa: E402
from soak.compare import age, differences  # noqa: E402

COMMAND = [sys.executable, "-m", "ssl_lab.cli.main"]
PRETRAIN = [
    "pretrain",
    "trainer=cpu",
    "evaluate_every_n_epochs=3",
    "save_every_n_steps=7",
    "trainer.log_every_n_steps=1",
]
SMALL_IMAGES = ["data=digits", "encoder=convnet", "encoder.widths=[8,16]", "data.batch_size=64"]
FEW = ["trainer.max_epochs=4"]  # of methods beside the first ones
VIEWS = [*SMALL_IMAGES, "views@method.views=digits"]
HEADS = {
    "simclr": ["method.hidden_dim=32", "callbacks=online_probes", "trainer.max_epochs=20"],
    "byol": ["method.hidden_dim=32", "trainer.max_epochs=15"],
    **{name: FEW for name in ("barlow_twins", "vicreg", "simsiam", "supcon", "nnclr", "moco_v2", "moco_v3")},
}
TEXT = ["data=python_docs", "data.batch_size=8", "data.max_length=32", "trainer.max_epochs=-1", "trainer.max_steps=60"]
METHODS = {
    **{name: [*PRETRAIN, f"method={name}", *VIEWS, *settings] for name, settings in HEADS.items()},
    "mae": [*PRETRAIN, "experiment=mae_digits", "data.batch_size=256", *FEW],
    "vae": [
        *PRETRAIN,
        "experiment=vae_digits",
        *SMALL_IMAGES[2:],
        "trainer.max_epochs=15",
        "trainer.accumulate_grad_batches=4",
    ],
    **{
        name: [*PRETRAIN, f"method={name}", *SMALL_IMAGES, "method.latent_dim=8", "evaluation=vae", *FEW]
        for name in ("iwae", "beta_vae", "beta_tcvae")
    },
    "aae": [*PRETRAIN, "method=aae", *SMALL_IMAGES, "method.latent_dim=8", *FEW],
    "vq_vae": [*PRETRAIN, "experiment=vq_vae_digits", "data.batch_size=256", *FEW],
    "gan": [*PRETRAIN, "experiment=gan_digits", "data.batch_size=64", "trainer.max_epochs=8"],
    "mlm": [*PRETRAIN, "experiment=mlm_python_docs", "encoder=bert_tiny", *TEXT[1:-1], "trainer.max_steps=150"],
    "causal_lm": [*PRETRAIN, "method=causal_lm", "encoder=gpt2_mini", "data.framing=causal", *TEXT],
    "simcse": [*PRETRAIN, "experiment=simcse_python_docs", "encoder=bert_tiny", *TEXT[1:]],
    "span_denoising": [*PRETRAIN, "method=span_denoising", "encoder=t5_mini", *TEXT],
    "finetune": ["finetune", "run=null", "encoder=bert_tiny", "data=hub_text", "data.path=films.csv", "baseline=false"]
    + ["data.label_column=label", "data.max_length=16", "data.batch_size=8", "trainer=cpu", "seeds=[0,1]"]
    + ["select=best", "trainer.max_epochs=4", "save_every_n_minutes=0.01"],
    "finetune similarity": ["finetune", "run=null", "encoder=bert_tiny", "data=text_pairs", "data.path=pairs.csv"]
    + ["task=similarity", "data.score_column=score", "data.max_length=16", "data.batch_size=8", "trainer=cpu"]
    + ["trainer.max_epochs=4", "save_every_n_minutes=0.01"],
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def start(name, run_dir):
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    if "finetune" in name and not (run_dir.parent / "pairs.csv").is_file():
        write_text(run_dir.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    return subprocess.Popen(
        [*COMMAND, *METHODS[name], f"run_dir={run_dir.name}"],
        cwd=run_dir.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
    )


def finish(name, run_dir):
    """Run to the end; seconds from the start of the process to the end."""
    began = time.time()
    process = start(name, run_dir)
    output, _ = process.communicate(timeout=1800)
    if process.returncode != 0:
        raise AssertionError(f"{name} ended with {process.returncode} in {run_dir}:\n{output[-3000:]}")
    return time.time() - began


def heartbeats(run_dir):
    """Heartbeats of a run, or of the trainings of a fine-tuning."""
    return sorted(run_dir.rglob("heartbeat.json"), key=lambda path: path.stat().st_mtime)


def in_peace(name, run_dir):
    """Train without interruption; seconds from the start to the first sign of training, and to the end."""
    began = time.time()
    end = finish(name, run_dir)
    return json.loads(heartbeats(run_dir)[0].read_text())["time"] - began, end


def kill_once(name, run_dir, moments, draw):
    """Start, kill at a random moment; what was sent, when, and at which step the run was. None if it had finished before."""
    number = draw.choice(SIGNALS)
    kind = draw.choice(("anywhere", "late", "training"))
    anywhere = kind != "training"
    train_start, end = moments
    span = {"anywhere": (0, end), "late": (0.75 * end, end), "training": (0, 0.8 * (end - train_start))}[kind]
    wait = draw.uniform(*span)
    for heartbeat in heartbeats(run_dir):
        heartbeat.unlink()
    process = start(name, run_dir)
    while not anywhere and process.poll() is None and not heartbeats(run_dir):
        time.sleep(0.02)
    try:
        output, _ = process.communicate(timeout=wait)
        if process.returncode != 0:
            raise AssertionError(f"{name} failed by itself:\n{output[-3000:]}")
        return None
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    output, _ = process.communicate(timeout=300)
    if "Traceback" in output:
        raise AssertionError(f"{number.name} left a traceback of {name}:\n{output[-3000:]}")
    moment = f"{wait:.2f} s after {'its start' if anywhere else 'its first batch'}"
    return {"signal": number.name, "moment": moment, "returncode": process.returncode}


def has_finished(run_dir):
    """Whether there is nothing left to do but to look at it."""
    name = "finetune.json" if list(run_dir.glob("*/seed_*")) else "summary.json"
    summaries = [json.loads(path.read_text()) for path in run_dir.rglob("summary.json")]
    return (run_dir / name).is_file() and all(summary["status"] == "finished" for summary in summaries)


def soak(folder, *, kills, seed, kills_per_run, methods, say=print):
    """Rows of all kills, and of all runs what was not equal."""
    draw = random.Random(seed)
    peace, rows, unequal, runs = {}, [], {}, 0
    while len(rows) < kills:
        for name in methods:
            if len(rows) >= kills:
                break
            if name not in peace:
                peace[name] = in_peace(name, folder / "peace" / name)
                say(f"{name} in peace: training from {peace[name][0]:.1f} s on, end after {peace[name][1]:.1f} s")
            run_dir = folder / f"killed_{runs}" / name  # named as in peace, since reports say the name
            runs += 1
            wanted = min(kills_per_run, kills - len(rows))
            while wanted and not has_finished(run_dir):
                killed = kill_once(name, run_dir, peace[name], draw)
                if killed is None:
                    break  # it had come to its end; the next run takes the kills that are left
                rows.append({"kill": len(rows) + 1, "run": f"{name}_{runs}", **killed})
                say(" ".join(f"{key} {value}" for key, value in rows[-1].items()))
                wanted -= 1
            age(run_dir)
            finish(name, run_dir)
            found = differences(
                run_dir, folder / "peace" / name, moved=True, unlike=("heartbeat.json", "previous.ckpt")
            )
            told = "every file as in peace" if not found else "NOT as in peace: " + "; ".join(found[:8])
            say(f"{name}_{runs} finished: {told}")
            unequal |= {f"{name}_{runs}": found} if found else {}
    return rows, unequal, runs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kills-per-run", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    args = parser.parse_args()

    def say(line):
        print(line, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "kills": args.kills,
            "seed": args.seed,
            "kills_per_run": args.kills_per_run,
            "methods": args.methods,
        }
        rows, unequal, runs = soak(Path(folder), **settings, say=say)
    counts = Counter(row["signal"] for row in rows)
    summary = (
        f"{len(rows)} kills ({', '.join(f'{count} {name}' for name, count in sorted(counts.items()))}) of {runs} runs: "
        f"{runs - len(unequal)} of {runs} ended with every file as in peace."
    )
    say(summary)
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main())
