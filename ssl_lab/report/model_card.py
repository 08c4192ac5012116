"""The README.md of an exported model: what it is, how it was trained, what was measured, how it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ssl_lab.report.run import Run
from ssl_lab.report.tables import markdown_table

_TASKS = {
    "AutoModelForMaskedLM": "fill-mask",
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSeq2SeqLM": "text2text-generation",
    "AutoModel": "feature-extraction",
    "T5EncoderModel": "feature-extraction",
}
"""What a model is for in the hub's words, by the class of transformers that loads it."""

_USE = {
    "AutoModelForMaskedLM": """\
text = f"The {tokenizer.mask_token} statement"
# The mask is a token here; the tokenizer reads special tokens in a text as plain characters otherwise.
inputs = tokenizer(text, split_special_tokens=False, return_tensors="pt")
scores = model(**inputs).logits[inputs["input_ids"] == tokenizer.mask_token_id, : len(tokenizer)]
print(tokenizer.convert_ids_to_tokens(scores.topk(5).indices[0]))
""",
    "AutoModelForCausalLM": """\
inputs = tokenizer("The statement", return_tensors="pt", add_special_tokens=False)
ids = model.generate(**inputs, max_new_tokens=20, do_sample=True, top_p=0.9, pad_token_id=tokenizer.pad_token_id)
print(tokenizer.decode(ids[0], skip_special_tokens=True))
""",
    "AutoModelForSeq2SeqLM": """\
ids = tokenizer("The statement", return_tensors="pt")["input_ids"]
ids[0, 1] = {sentinel}  # the first sentinel: stands for a span that the model writes
print(tokenizer.decode(model.generate(ids, max_new_tokens=10)[0], skip_special_tokens=True))
""",
    "features": """\
inputs = tokenizer(["One text.", "Another, longer text."], padding=True, return_tensors="pt")
hidden = model(**inputs).last_hidden_state
{pooling}
print(features.shape)
""",
}

_POOLING = {
    "mean": """\
weights = inputs["attention_mask"].unsqueeze(-1)
features = (hidden * weights).sum(1) / weights.sum(1)  # the mean over real tokens, as in training""",
    "first": "features = hidden[:, 0]  # the first token's state, as in training",
    "last": """\
last = inputs["attention_mask"].sum(1) - 1
features = hidden[range(len(hidden)), last]  # the last real token's state, as in training""",
}


def model_card(
    run: Run, *, auto_class: str, architecture: str, num_parameters: int, vocab_size: int, max_length: int
) -> str:
    """Markdown with the front matter that the Hugging Face hub reads.

    Args:
        run: The run that trained the model.
        auto_class: Class of transformers that loads it, such as ``AutoModelForMaskedLM``.
        architecture: Class of transformers that it is, such as ``BertForMaskedLM``.
        num_parameters: Parameters, tied ones once.
        vocab_size: Tokens of its tokenizer.
        max_length: Tokens of the longest texts that were trained on.
    """
    summary = run.summary
    task = _TASKS[auto_class]
    fine_tuned = "start" in summary  # of ssl-lab finetune
    tags = ["ssl_lab", *([] if fine_tuned else ["self-supervised-learning"]), run.method.lower()]
    front = yaml.safe_dump(
        {"library_name": "transformers", "pipeline_tag": task, "tags": tags}, sort_keys=False, allow_unicode=True
    )
    start = (run.config.get("encoder") or {}).get("pretrained")
    source = f"the run {Path(run.config['run']).name}" if fine_tuned and run.config.get("run") else None
    trained = f"fine-tuned with the labels of {run.data}; the head of its task is not in it"
    if not fine_tuned:
        trained = "pretrained on text without labels"
    learned_from = f"the training samples above{f' and those of {source or start}' if source or start else ''}"
    facts = [
        ("Method", run.method),
        ("Started from", source or start),
        ("Data", run.data),
        ("Architecture", architecture),
        ("Parameters", f"{num_parameters:,}"),
        ("Vocabulary", f"{vocab_size:,} tokens"),
        ("Longest text", f"{max_length:,} tokens, special ones included"),
        ("Optimizer steps", _count(summary.get("step"))),
        ("Epochs", _count(summary.get("epoch"))),
        ("Training samples", _count(summary.get("num_train_samples"))),
        ("Seed", summary.get("seed")),
        ("Trained with", _versions(summary.get("versions") or {})),
    ]
    known = "\n".join(f"| {name} | {value} |" for name, value in facts if value not in (None, ""))
    return f"""---
{front}---

# {run.method} on {run.data}

A {architecture} {trained}.

| | |
|:--|:--|
{known}

## Measured

{_measured(run)}
## Use

```python
{_snippet(run, auto_class)}```

{_also(auto_class)}
## Limits

The model has learned from {learned_from} and nothing else: it repeats their language, topics,
errors and prejudices, and is not to be relied on for facts. Texts of more than {max_length:,} tokens are outside of what it
has learned. The figures above are of the test split of the same data; on other text expect worse.

## Licence

To be filled in before it is published: the licence of the training data decides what is allowed. Then add `license:` to
the lines at the top.
"""


def _measured(run: Run) -> str:
    if not run.evaluation or not any(row["metrics"] for row in run.evaluation["rows"]):
        return "Nothing was measured.\n"
    return f"On the {run.evaluation.get('split', 'test')} split of {run.data}.\n\n{markdown_table(run.evaluation)}"


def _snippet(run: Run, auto_class: str) -> str:
    encoder = run.config.get("encoder") or {}
    use = _USE[auto_class if auto_class in _USE else "features"]
    if auto_class not in _USE:
        use = use.format(pooling=_POOLING[encoder.get("pooling", "mean")])
    if auto_class == "AutoModelForSeq2SeqLM":
        of_tokenizer = encoder.get("pretrained") is not None
        use = use.format(sentinel=f"{'len(tokenizer)' if of_tokenizer else 'model.config.vocab_size'} - 1")
    return f"""\
from transformers import {", ".join(sorted((auto_class, "AutoTokenizer")))}

folder = "."  # where this file is, or the model's name on the hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {auto_class}.from_pretrained(folder)

{use}"""


def _also(auto_class: str) -> str:
    if auto_class not in _USE:
        return ""
    return (
        "`AutoModel` loads the encoder without its head; features of a text are its last hidden states, averaged over the\n"
        "tokens that `attention_mask` marks.\n"
    )


def _versions(versions: dict[str, Any]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in ("ssl_lab", "torch", "transformers") if name in versions)


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
