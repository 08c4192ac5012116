"""Default commands on data that no default was tuned on, beside what users would take instead, at equal processor time.

    pip install --target peers --no-deps pythae==0.1.2 imageio cloudpickle
    python benchmarks/defaults.py --data DIR --work DIR --peers peers --seeds 0 1 2 --json benchmarks/results/defaults.json

Data are written as a user has them: folders of images, tables of texts. Images: ``ssl-lab pretrain data=image_folder``
(SimCLR), beside lightly's documented loop. Samples: the same with ``method=vae``, beside pythae's default VAE. Texts:
``ssl-lab pretrain data=text_files`` (masked language modelling) and ``ssl-lab finetune``, beside a loop of transformers and
TF-IDF with logistic regression. Every command runs in one thread; the peer of a row gets the CPU seconds that the pretraining
command took, imports included. The judges are of :mod:`defaults_judge`. Mean and standard deviation over seeds; a row of a
seed that is in the file of ``--work`` is not repeated.
"""

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import defaults_judge as judge
import numpy as np
from command import read, write_json
from defaults_data import IMAGES, TEXTS, write_images, write_texts
from defaults_peers import read_images

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
HERE = Path(__file__).parent


def run(*words):
    """Run a program; its CPU seconds, or the end of all with its message if it fails."""
    print(" ".join(map(str, words)), flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *map(str, words)], env=ONE_THREAD, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr[-4000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))


def ssl_lab(*words):
    return run("-m", "ssl_lab.cli.main", *words)


def peer(name, out, seconds, args, *more):
    run(HERE / "defaults_peers.py", name, "--out", out, "--seconds", seconds, "--seed", args.seed, *more)


def pretrain(folder, *words, args):
    """Pretrain by default; its CPU seconds, evaluation left out, which peers do not have."""
    given = [
        "trainer.accelerator=cpu",
        "trainer.devices=1",
        "evaluation=none",
        f"seed={args.seed}",
        f"run_dir={folder}",
    ]
    return ssl_lab("pretrain", *words, *given)


def image_row(data, folder, args):
    """Features of raw pixels, the untrained network, lightly and ssl_lab."""
    seconds = pretrain(folder / "run", "data=image_folder", f"data.root={data}", args=args)
    peer("lightly", folder / "lightly.npz", seconds, args, "--data", data, "--encoder", folder / "run")
    images = {split: read_images(data, split) for split in ("train", "test")}
    (train, labels), (test, truth) = images["train"], images["test"]
    found = np.load(folder / "lightly.npz")
    ours, untrained = embedded(folder / "run", train, test)
    inputs = {
        "raw pixels": [x.reshape(len(x), -1) / 255 for x in (train, test)],
        "random encoder": untrained,
        "lightly": [found["train"], found["test"]],
        "ssl_lab": ours,
    }
    scores = {name: judge.features(x, labels, y, truth) for name, (x, y) in inputs.items()}
    return {"seconds": seconds, "peer_steps": int(found["steps"]), "scores": scores}


def embedded(run_dir, *parts):
    """Features of images by a run's encoder, and by the same network before training."""
    import torch

    import ssl_lab.cli.using  # noqa: F401
    from ssl_lab.cli.build import build_encoder, load_run

    settings, spec, method = load_run(run_dir)
    torch.manual_seed(settings.seed)
    found = []
    for encoder in (method.feature_encoder, build_encoder(settings.encoder, spec)):
        encoder.eval()
        with torch.no_grad():
            for images in parts:
                x = torch.from_numpy(images if images.ndim == 4 else images[..., None]).permute(0, 3, 1, 2)
                found.append(torch.cat([encoder.embed({"image": part}) for part in x.split(500)]).numpy())
    return found[:2], found[2:]


def sample_row(data, folder, args):
    """Samples of pythae and ssl_lab."""
    seconds = pretrain(folder / "run", "data=image_folder", f"data.root={data}", "method=vae", args=args)
    peer("pythae", folder / "pythae.npy", seconds, args, "--data", data, "--peers", args.peers)
    ssl_lab(
        "sample",
        f"run={folder / 'run'}",
        "num_samples=2000",
        f"out={folder / 'samples'}",
        "format=npz",
        f"seed={args.seed}",
    )
    images = {split: read_images(data, split) for split in ("train", "test")}
    channels_first = {
        split: (x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2), y) for split, (x, y) in images.items()
    }
    trained = judge.SampleJudge(*channels_first["train"], *channels_first["test"])
    samples = np.concatenate([np.load(file)["images"] for file in sorted((folder / "samples").glob("*.npz"))])
    scores = {
        "real images": trained.score(np.ascontiguousarray(channels_first["train"][0][:2000])),
        "pythae": trained.score(np.load(folder / "pythae.npy")),
        "ssl_lab": trained.score(np.ascontiguousarray(samples.transpose(0, 3, 1, 2))),
    }
    return {"seconds": seconds, "judge_accuracy": trained.accuracy, "scores": scores}


def text_row(data, folder, args):
    """Accuracy of TF-IDF with logistic regression, of transformers and of ssl_lab."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    source = ["data=text_files", f"data.path={data}", "data.label_column=label"]
    seconds = pretrain(folder / "run", *source, args=args)
    tuned = ["trainer.accelerator=cpu", "trainer.devices=1", "baseline=true"]
    ssl_lab("finetune", f"run={folder / 'run'}", f"seeds=[{args.seed}]", *tuned, f"run_dir={folder / 'tuned'}")
    peer("transformers", folder / "transformers.json", seconds, args, "--data", data)
    columns = {}
    for split in ("train", "test"):
        with (data / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            columns[split] = list(zip(*((row["text"], row["label"]) for row in csv.DictReader(file)), strict=True))
    (train, labels), (test, truth) = columns["train"], columns["test"]
    counts = TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2))
    classifier = LogisticRegression(C=10, max_iter=300).fit(counts.fit_transform(train), labels)
    theirs = json.loads((folder / "transformers.json").read_text())
    ours = read(folder / "tuned", "finetune.json")["scores"]
    scores = {
        "TF-IDF": {"accuracy": 100 * classifier.score(counts.transform(test), truth)},
        "transformers": {"accuracy": 100 * theirs["accuracy"]},
        **{f"ssl_lab, {name}": {"accuracy": 100 * accuracy_of(row)} for name, row in ours.items()},
    }
    return {"seconds": seconds, "peer_steps": theirs["steps"], "scores": scores}


def accuracy_of(row):
    return next(value for name, value in row.items() if name.rpartition("/")[2] == "accuracy")


ROWS = {
    **{f"features {name}": (image_row, make, write_images) for name, make in IMAGES.items()},
    **{f"samples {name}": (sample_row, IMAGES[name], write_images) for name in ("fashion_mnist", "cifar10")},
    **{f"text {name}": (text_row, make, write_texts) for name, make in TEXTS.items()},
}


def summary(found):
    """Mean and standard deviation of each score of a row over its seeds."""
    first = next(iter(found.values()))
    return {
        name: {
            metric: {
                "mean": statistics.mean(values := [each["scores"][name][metric] for each in found.values()]),
                "std": statistics.stdev(values) if len(values) > 1 else None,
            }
            for metric in scores
        }
        for name, scores in first["scores"].items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets, see defaults_data.py")
    parser.add_argument("--work", type=Path, required=True, help="folder for data, runs and rows")
    parser.add_argument("--peers", type=Path, help="folder into which pythae was installed")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()

    rows = {}
    for name in args.rows:
        for seed in args.seeds:
            args.seed = seed
            measure, make, write = ROWS[name]
            data = args.work / "data" / name.split()[1]
            if not data.exists():
                write(make(args.data), data)
            file = args.work / f"{name.replace(' ', '_')}_{args.seed}.json"
            if not file.exists():
                folder = args.work / f"{name.replace(' ', '_')}_{args.seed}"
                folder.mkdir(parents=True)
                write_json(measure(data, folder, args), file)
            rows.setdefault(name, {})[args.seed] = json.loads(file.read_text())
    for name, found in rows.items():
        seconds = statistics.mean(each["seconds"] for each in found.values())
        print(f"\n{name}: {seconds:.0f} CPU s, {len(found)} seed{'s' * (len(found) > 1)}")
        for contender, scores in summary(found).items():
            figures = (
                f"{metric} {each['mean']:.1f}" + (f" ± {each['std']:.1f}" if each["std"] is not None else "")
                for metric, each in scores.items()
            )
            print(f"  {contender:<28} {'   '.join(figures)}")
    write_json({name: {"seeds": found, "summary": summary(found)} for name, found in rows.items()}, args.json)


if __name__ == "__main__":
    main()
