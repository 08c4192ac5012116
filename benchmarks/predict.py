"""What ``ssl-lab predict`` adds to a bare loop of the same network over the same picture files, with the same labels.

    python benchmarks/predict.py --json benchmarks/results/predict.json

A convnet with a head is fine-tuned for one epoch on digits that were written as 1,000 PNG files. Then, in turn, as whole
processes from start to exit with a table on the disk, and within one process without imports:

- bare: open each file with Pillow, stack 512 at a time, one forward pass of the network, softmax, csv;
- ours: ``ssl-lab predict run=DIR input=FOLDER out=FILE.csv``, and ``predict(DIR, FOLDER)``.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

NUM_FILES, BATCH_SIZE, SIDE = 1000, 512, 32
BARE = """
import sys
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
from predict import Network, bare_loop, write_csv
import torch
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.modalities.image import ImageSpec
facts = torch.load({network!r}, weights_only=True)
head = torch.nn.Sequential(torch.nn.Dropout(0), torch.nn.Linear(*facts["head"]))
network = Network(ConvNet(ImageSpec(**facts["spec"])), head)
network.load_state_dict(facts["weights"])
write_csv(Path({out!r}), *bare_loop(network.eval(), Path({folder!r})))
"""


def write_files(folder):
    """Digits, enlarged, as a folder of PNG files for each class."""
    from ssl_lab.data.image.digits import Digits

    columns = Digits().columns("train")
    for k, (image, label) in enumerate(zip(columns["image"][:NUM_FILES], columns["label"][:NUM_FILES], strict=True)):
        place = folder / str(int(label))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).resize((SIDE, SIDE)).save(place / f"{k:04d}.png")


def bare_loop(network, folder):
    """Paths and probabilities of all classes of the files of a folder."""
    import numpy as np

    files = sorted(folder.rglob("*.png"))
    found = []
    with torch.no_grad():
        for start in range(0, len(files), BATCH_SIZE):
            pixels = np.stack([np.array(Image.open(file)) for file in files[start : start + BATCH_SIZE]])
            found.append(network(torch.from_numpy(pixels)[:, None]).softmax(1))
    return files, torch.cat(found).tolist()


def write_csv(out, files, shares):
    """A row for each file: the most probable class and all probabilities."""
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        for path, each in zip(files, shares, strict=True):
            writer.writerow([path, each.index(max(each)), max(each), *each])


class Network(torch.nn.Module):
    """Pixels to scores, as the run's encoder and head compute them."""

    def __init__(self, encoder, head):
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, images):
        """Scores (B, C)."""
        return self.head(self.encoder.embed({"image": images}))


def timed(work):
    """Seconds that something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(bare, ours, *, repeats):
    """Seconds of both in turn, and the median of the ratios of neighbours."""
    pairs = [(timed(bare), timed(ours)) for _ in range(repeats)]
    bare_sec, ours_sec = (statistics.median(each) for each in zip(*pairs, strict=True))
    ratios = sorted(b / a for a, b in pairs)
    return {
        "bare_sec": bare_sec,
        "ours_sec": ours_sec,
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def main():
    """Measure and print."""
    from ssl_lab.cli.main import main as ssl_lab
    from ssl_lab.cli.using import open_to_use, predict
    from ssl_lab.runs.environment import environment

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root, folder, out = Path(place), Path(place, "files"), Path(place, "found.csv")
        os.environ["SSL_LAB_CACHE"] = str(root / "cache")
        write_files(folder)
        data = ["data=image_folder", f"data.root={folder}", f"data.image_size={SIDE}", "data.channels=1"]
        command = ["finetune", "run=null", "encoder=convnet", "task=image_classification", *data, "trainer=cpu"]
        assert ssl_lab([*command, "trainer.max_epochs=1", f"run_dir={root}/run"]) == 0
        run_dir = root / "run/random/seed_0"

        task = open_to_use(run_dir).method.cpu()
        network = Network(task.encoder, task.head)
        spec = {name: getattr(task.encoder.spec, name) for name in ("shape", "mean", "std")}
        facts = {"weights": network.state_dict(), "spec": spec, "head": tuple(task.head[-1].weight.shape[::-1])}
        torch.save(facts, root / "network.pt")
        names = {"network": str(root / "network.pt"), "out": str(out), "folder": str(folder)}
        script = BARE.format(benchmarks=str(Path(__file__).parent), **names)
        asked = [f"run={run_dir}", f"input={folder}", f"out={root}/ours.csv"]
        words = [sys.executable, "-m", "ssl_lab.cli.main", "predict", *asked]
        results = {
            "process": compare(
                lambda: subprocess.run([sys.executable, "-c", script], check=True),
                lambda: subprocess.run(words, check=True, capture_output=True),
                repeats=arguments.repeats,
            ),
            "function": compare(
                lambda: write_csv(out, *bare_loop(network, folder)),
                lambda: predict(run_dir, folder),
                repeats=3 * arguments.repeats,
            ),
        }
        with (root / "ours.csv").open() as ours, out.open() as bare:
            both = zip(csv.DictReader(ours), csv.reader(bare), strict=True)
            assert all(mine["prediction"] == theirs[1] for mine, theirs in both), "the same predictions"
    for name, found in results.items():
        print(f"{name:9} bare {found['bare_sec']:.3f} s, ours {found['ours_sec']:.3f} s, ratio {found['ratio']:.2f}")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"files": NUM_FILES, "side": SIDE, **results, **environment()}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
