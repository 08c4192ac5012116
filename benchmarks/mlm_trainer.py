"""Masked language modelling: ssl_lab beside transformers' Trainer, same model, tokenizer, text and batch, in turns.

    pip install 'accelerate>=1.1'
    python benchmarks/mlm_trainer.py --text brown.train.txt.gz --json benchmarks/results/mlm_trainer_documents.json
    python benchmarks/mlm_trainer.py --text sst2.train.tsv --lines --json benchmarks/results/mlm_trainer_lines.json
    python benchmarks/mlm_trainer.py --text brown.train.txt.gz --accelerator gpu --size base --max-length 512

Trainer follows transformers' run_mlm recipe: DataCollatorForLanguageModeling at 15 %, gradients not accumulated, its own
optimizer and defaults. Of documents (--text: paragraphs apart by empty lines) the recipe concatenates all text and cuts it
into blocks; of lines (--lines: one short text each, of a tsv file the first column) it pads each to the maximal length, or
to the longest of its batch. ssl_lab keeps documents apart, pads their remainders, and with packing
puts several into a row that do not see each other; it trains through Lightning as `ssl-lab bench` does.

Tokens are real ones, class and separator tokens included; padding is not counted. Contenders take turns, each run in a
process of its own; medians over runs and their spread are reported, and beside the wall time that of the processors, which a
busy machine disturbs less.
"""

import argparse
import gzip
import json
import logging
import multiprocessing
import platform
import statistics
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import datasets
import lightning as L
import torch
import transformers
from command import write_json
from transformers import AutoTokenizer, DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments

from ssl_lab.data.text.hub_text import HubText
from ssl_lab.data.text.tokenizer import train_wordpiece
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.engine.bench import bench
from ssl_lab.engine.memory import keep_freed_memory
from ssl_lab.methods.mlm import MLM
from ssl_lab.optim import AdamW
from ssl_lab.pretext.masking import TokenMasking


def texts_of(args):
    """The documents or lines of the file."""
    read = gzip.open if args.text.suffix == ".gz" else open
    with read(args.text, "rt", encoding="utf-8") as file:
        content = file.read()
    if not args.lines:
        return [text for text in content.split("\n\n") if text.strip()]
    return [line.split("\t")[0] for line in content.splitlines() if line.strip()]


def ours(args, folder, *, precision, compiled=False, packing=False):
    """``ssl-lab pretrain``'s path."""
    keep_freed_memory()
    data = HubText(
        str(folder / "texts.jsonl"),
        tokenizer=str(folder / "tokenizer"),
        max_length=args.max_length,
        packing=packing,
        val_fraction=0,
        test_fraction=0,
        batch_size=args.batch_size,
    )
    method = MLM(TextTransformer(data.spec, size=args.size), AdamW(), TokenMasking())
    if compiled:
        method.encoder.compile(dynamic=False)
        method.masking.compile(dynamic=False)
    clock = StepTime(args.warmup_steps, args.num_steps)
    trainer = L.Trainer(
        accelerator=args.accelerator,
        devices=1,
        precision=precision,
        max_epochs=-1,
        max_steps=args.warmup_steps + 2 * args.num_steps,
        gradient_clip_val=1.0,  # as Trainer does
        default_root_dir=folder,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    speed = bench(method, data, trainer, warmup_steps=args.warmup_steps, num_steps=args.num_steps)
    tokens_per_step = speed.tokens_per_sec * speed.step_ms / 1000
    return {
        "tokens_per_sec": tokens_per_step * args.num_steps / clock.seconds,
        "tokens_per_processor_sec": tokens_per_step * args.num_steps / clock.processor_seconds,
        "mfu": speed.mfu,
        "shares": speed.shares,
    }


class StepTime(L.Callback):
    """Seconds from the end of the warm-up on, over a number of steps; of the clock, and of all threads together."""

    def __init__(self, warmup_steps, num_steps):
        self.warmup_steps, self.num_steps, self.step = warmup_steps, num_steps, 0

    def on_train_batch_end(self, *_):
        self.step += 1
        if self.step == self.warmup_steps:
            self.start, self.processor_start = self.now()
        elif self.step == self.warmup_steps + self.num_steps:
            wall, processor = self.now()
            self.seconds, self.processor_seconds = wall - self.start, processor - self.processor_start

    @staticmethod
    def now():
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()


def trainers(args, folder, *, precision, padding=None):
    """The recipe of transformers: its data preparation, collator and Trainer."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    rows = datasets.load_dataset("json", data_files=str(folder / "texts.jsonl"), split="train", cache_dir=str(folder))
    if args.lines:
        rows = rows.map(
            lambda batch: tokenizer(
                batch["text"],
                padding="max_length" if padding == "maximal" else False,
                truncation=True,
                max_length=args.max_length,
                return_special_tokens_mask=True,
            ),
            batched=True,
            remove_columns=["text"],
        )
    else:
        rows = rows.map(
            lambda batch: tokenizer(batch["text"], return_special_tokens_mask=True),
            batched=True,
            remove_columns=["text"],
        )
        rows = rows.map(lambda batch: concatenated(batch, args.max_length), batched=True)
    torch.manual_seed(0)
    spec = HubText(str(folder / "texts.jsonl"), tokenizer=str(folder / "tokenizer"), max_length=args.max_length).spec
    model = MLM(TextTransformer(spec, size=args.size), AdamW(), TokenMasking()).language_model().train()
    clock = Clock(args)
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)

    def counting(samples):
        batch = collate(samples)
        clock.tokens.append(int(batch["attention_mask"].sum()))
        return batch

    settings = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=args.batch_size,
        max_steps=args.warmup_steps + args.num_steps,
        use_cpu=args.accelerator == "cpu",
        bf16=precision == "bf16-mixed",
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=settings, train_dataset=rows, data_collator=counting, callbacks=[clock])
    trainer.train()
    tokens = statistics.fmean(clock.tokens) * args.num_steps
    return {
        "tokens_per_sec": tokens / clock.seconds,
        "tokens_per_processor_sec": tokens / clock.processor_seconds,
    }


def concatenated(batch, length):
    """``group_texts`` of run_mlm: all texts one after another, cut into blocks, the remainder dropped."""
    joined = {name: sum(lists, []) for name, lists in batch.items()}
    total = len(joined["input_ids"]) // length * length
    return {name: [ids[i : i + length] for i in range(0, total, length)] for name, ids in joined.items()}


class Clock(TrainerCallback):
    """Seconds from the end of the warm-up to the end of training, and the tokens of each batch."""

    def __init__(self, args):
        self.args, self.tokens = args, []

    def on_step_end(self, settings, state, control, **_):
        if self.args.accelerator == "gpu" and state.global_step in (self.args.warmup_steps, settings.max_steps):
            torch.cuda.synchronize()
        if state.global_step == self.args.warmup_steps:
            self.start, self.processor_start = time.perf_counter(), time.process_time()
        elif state.global_step == settings.max_steps:
            self.seconds = time.perf_counter() - self.start
            self.processor_seconds = time.process_time() - self.processor_start


def contenders(args):
    """Functions by name, each for fp32 and bf16-mixed."""
    found = {"ssl_lab": (ours, {}), "ssl_lab, compiled": (ours, {"compiled": True})}
    found |= {"ssl_lab, packed": (ours, {"packing": True})}
    found |= {"ssl_lab, packed and compiled": (ours, {"packing": True, "compiled": True})}
    if args.lines:
        found |= {f"Trainer, {kind} padding": (trainers, {"padding": kind}) for kind in ("maximal", "dynamic")}
    else:
        found |= {"Trainer": (trainers, {})}
    return found


PRECISIONS = ("32-true", "bf16-mixed")


def in_own_process(*settings):
    """What a contender reaches; settings of its process do not stay."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, *settings).result()


def _run(name, args, precision, folder):
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    torch.manual_seed(0)
    contender, settings = contenders(args)[name]
    return contender(args, folder, precision=precision, **settings)


def prepare(args, folder):
    """One tokenizer and one file of texts for all; returns the number of texts."""
    texts = texts_of(args)
    train_wordpiece(lambda: iter([texts]), vocab_size=args.vocab_size).save_pretrained(folder / "tokenizer")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return len(texts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="plain text or tsv, gzipped or not")
    parser.add_argument("--lines", action="store_true", help="each line is a short text of its own")
    parser.add_argument("--contenders", nargs="*", metavar="NAME", help="by default all")
    parser.add_argument("--precisions", nargs="*", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--size", default="mini", help="of the BERT miniatures")
    parser.add_argument("--vocab-size", type=int, default=16384)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-steps", type=int, default=10)
    parser.add_argument("--warmup-steps", type=int, default=3, help="a compiled model compiles in the first two")
    parser.add_argument("--num-runs", type=int, default=3)
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    known = contenders(args)
    names = args.contenders or list(known)
    if unknown := set(names) - set(known):
        parser.error(f"unknown contenders {sorted(unknown)}; known are {sorted(known)}")

    results = {f"{name}, {precision}": [] for name in names for precision in args.precisions}
    with tempfile.TemporaryDirectory() as folder:
        num_texts = prepare(args, Path(folder))
        for _ in range(args.num_runs):
            for precision in args.precisions:
                for name in names:
                    found = in_own_process(name, args, precision, Path(folder))
                    results[f"{name}, {precision}"].append(found)
                    print(f"  {name}, {precision}: {found['tokens_per_sec']:.0f} tokens/s", flush=True)
    print(f"BERT-{args.size}, length {args.max_length}, batch {args.batch_size}, {num_texts:,} texts")
    print(f"{'median (range) of ' + str(args.num_runs) + ' runs':46}{'tokens/s':>20}{'tokens/processor s':>22}")
    for name, runs in results.items():
        print(
            f"  {name:44}"
            + "".join(f"{spread(runs, key):>22}" for key in ("tokens_per_sec", "tokens_per_processor_sec"))
        )
    if args.json:
        figures = {
            **{key: value for key, value in vars(args).items() if key not in ("json", "text")},
            "text": args.text.name,
            "num_texts": num_texts,
            "results": results,
            **{name: version(name) for name in ("torch", "lightning", "transformers", "accelerate")},
            "device": torch.cuda.get_device_name() if args.accelerator == "gpu" else platform.machine(),
            "threads": torch.get_num_threads(),
        }
        write_json(figures, args.json)


def spread(runs, key):
    values = [run[key] for run in runs]
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"


if __name__ == "__main__":
    main()
