"""The examples of the page on Python, run as one script."""

import re

import pytest
from pages import ROOT

BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/python.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::UserWarning:lightning", "ignore:.isinstance.treespec, LeafSpec"
)  # outside of the command
def test_the_examples_of_the_page_run_and_say_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(BLOCKS).replace("epochs=40", "steps=2").replace('"epochs": 1', '"steps": 2')
    code = code.replace("epochs=1, data__", "steps=2, data__")
    exec(compile(code, "docs/python.md", "exec"), {"__name__": "page"})
    told = " ".join(capsys.readouterr().out.split())
    assert "Did you mean method.temperature?" in told and "runs/mine has finished before" in told
    page = " ".join((ROOT / "docs/python.md").read_text().split())
    message = re.search(r"Cannot read images of floats from 0 to 16: .*?possible value\.", told)
    assert message is not None and message[0] in page
