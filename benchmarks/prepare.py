"""A large corpus: ``ssl-lab prepare``, and how soon a run that was interrupted goes on.

    python benchmarks/prepare.py --json benchmarks/results/prepare.json FILE [FILE ...]

The paragraphs of the given text files (plain, gzipped, or a tar archive of text files) are repeated in shuffled order until
there are ``--megabytes`` of them, in a temporary folder. The command runs in a process of its own, whose memory and that of
its children is read ten times a second. Then BERT-tiny trains on the packed shards, is stopped by SIGTERM in the middle of
its first epoch, and goes on with ``ckpt=last``; the time is from the start of the command to the first batch.
"""

import argparse
import gzip
import json
import os
import platform
import random
import re
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import tokenizers
from command import write_json

FIRST_BATCH = """
import sys, time
from ssl_lab.methods.mlm import MLM
step = MLM.training_step
def first(self, batch, batch_idx):
    if not hasattr(MLM, "started"):
        MLM.started = True
        print("FIRST BATCH", time.time(), time.process_time(), self.trainer.fit_loop.total_batch_idx + 1, flush=True)
    return step(self, batch, batch_idx)
MLM.training_step = first
from ssl_lab.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def paragraphs(file):
    if ".tar" in file.suffixes:
        with tarfile.open(file) as archive:
            contents = [archive.extractfile(member).read() for member in archive if member.isfile()]
    else:
        contents = [gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()]
    texts = (content.decode("utf-8", errors="replace") for content in contents)
    return [p.strip() for text in texts for p in re.split(r"\n\s*\n", text) if p.strip()]


def write_corpus(files, target, *, num_bytes):
    known = [paragraph for file in files for paragraph in paragraphs(file)]
    shuffle = random.Random(0).shuffle
    written = 0
    with target.open("w", encoding="utf-8") as file:
        while written < num_bytes:
            shuffle(known)
            for paragraph in known:
                written += file.write(paragraph + "\n\n")
                if written >= num_bytes:
                    break
    return {"megabytes": target.stat().st_size / 1e6, "distinct_paragraphs": len(set(known))}


def tree(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        found = [int(child) for child in children.read_text().split()]
    except OSError:
        return []
    return [pid, *(process for child in found for process in tree(child))]


def resident_bytes(pid):
    try:
        return 1024 * int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])
    except (OSError, TypeError):  # it has ended
        return 0


def run_and_watch(command, environment):
    """Wall time, processor time, and the highest sum of resident sets of the process and its children in GiB."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, env=environment)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(resident_bytes, tree(process.pid))))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{command} failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall_time_sec": time.perf_counter() - start,
        "processor_time_sec": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_resident_gib": peak / 2**30,
    }


def until_first_batch(overrides, environment, *, then):
    """Seconds to the first batch of ``ssl-lab pretrain``; ``then`` seconds later the process is sent SIGTERM."""
    start = time.time()
    command = [sys.executable, "-c", FIRST_BATCH, "pretrain", *overrides]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in process.stdout:
        if line.startswith("FIRST BATCH"):
            now, processor, step = line.split()[2:]
            time.sleep(then)
            process.send_signal(signal.SIGTERM)
            process.communicate()
            return {
                "wall_time_sec": float(now) - start,
                "processor_time_sec": float(processor),
                "batch_number": int(step),
            }
    raise SystemExit(f"{command} ended before its first batch")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()

    result = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "tokenizers": tokenizers.__version__}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
        result["corpus"] = write_corpus(args.files, folder / "corpus.txt", num_bytes=1e6 * args.megabytes)
        out = folder / "shards"
        words = ["prepare", "data=text_files", f"data.path={folder}/corpus.txt", f"out={out}"]
        command = [sys.executable, "-m", "ssl_lab.cli.main", *words, f"num_workers={args.num_workers}"]
        figures = run_and_watch(command, environment)
        manifest = json.loads((out / "manifest.json").read_text())
        num_tokens = sum(split["num_tokens"] for split in manifest["splits"].values())
        on_disk = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        result["prepare"] = {
            **figures,
            "num_workers": args.num_workers,
            "num_documents": sum(split["counts"]["num_documents"] for split in manifest["splits"].values()),
            "num_tokens": num_tokens,
            "bytes_on_disk": on_disk,
            "bytes_on_disk_over_bytes_of_ids": on_disk / (2 * num_tokens),
        }
        result["prepare_again"] = run_and_watch(command, environment)
        settings = ["experiment=mlm_text", "data=shards", f"data.path={out}", "data.packing=true", "encoder=bert_tiny"]
        settings += ["trainer=cpu", "evaluation=none", f"run_dir={folder}/run"]
        begin = until_first_batch(settings, environment, then=20)
        again = until_first_batch([*settings, "ckpt=last"], environment, then=1)
        summary = json.loads((folder / "run" / "summary.json").read_text())
        result["pretrain"] = {
            "rows": summary["num_train_samples"],
            "padding_share": summary["data/padding_share"],
            "start_to_first_batch": begin,
            "resume_to_next_batch": again,
        }
        result["load_average"] = os.getloadavg()
    print(json.dumps(result, indent=2))
    write_json(result, args.json)


if __name__ == "__main__":
    main()
