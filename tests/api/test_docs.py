"""The examples of the pages on Python and on other libraries, each run as one script."""

import re

import pytest
from pages import ROOT

OUTSIDE = ("ignore::UserWarning:lightning", "ignore:.isinstance.treespec, LeafSpec")  # of the command


def script(page, *shorter):
    """The code of a page, with replacements that make it faster."""
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL))
    for long, short in shorter:
        assert long in code, long
        code = code.replace(long, short)
    return compile(code, page, "exec")


@pytest.mark.slow
@pytest.mark.filterwarnings(*OUTSIDE)
def test_the_examples_of_the_page_run_and_say_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    steps = ("epochs=40", "steps=2"), ('"epochs": 1', '"steps": 2'), ("epochs=1, data__", "steps=2, data__")
    exec(script("docs/python.md", *steps), {"__name__": "page"})
    told = " ".join(capsys.readouterr().out.split())
    assert "Did you mean method.temperature?" in told and "runs/mine has finished before" in told
    page = " ".join((ROOT / "docs/python.md").read_text().split())
    message = re.search(r"Cannot read images of floats from 0 to 16: .*?possible value\.", told)
    assert message is not None and message[0] in page


@pytest.mark.slow
@pytest.mark.filterwarnings(*OUTSIDE)
def test_the_examples_with_lightly_lightning_and_transformers_run(tmp_path, monkeypatch):
    pytest.importorskip("lightly")
    monkeypatch.chdir(tmp_path)
    page = {"__name__": "page"}
    exec(script("docs/howto_interop.md", ("epochs=1", "steps=2")), page)
    assert page["features"].shape == (10, 512)
    assert page["run"].method.encoder.spec.vocab_size == len(page["tokenizer"])
