"""The names that the package itself offers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ssl_lab
from ssl_lab.api.evaluate import evaluate
from ssl_lab.api.pretrain import pretrain
from ssl_lab.api.run import open_run


def test_public_names_are_those_of_their_modules_and_of_type_checkers():
    assert (ssl_lab.open_run, ssl_lab.pretrain, ssl_lab.evaluate) == (open_run, pretrain, evaluate)
    assert set(ssl_lab.__all__) <= set(dir(ssl_lab))
    nodes = ast.walk(ast.parse(Path(ssl_lab.__file__).read_text()))
    typed = {
        alias.name: node.module
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module.startswith("ssl_lab.") and node.col_offset
        for alias in node.names
    }
    assert typed == ssl_lab._HOMES and sorted(typed) == ssl_lab.__all__
    assert all(getattr(ssl_lab, name).__module__ == home for name, home in typed.items())


def test_a_name_that_there_is_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ssl_lab' has no attribute 'train'"):
        ssl_lab.train  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"torch", "lightning", "numpy", "hydra", "yaml", "transformers", "timm", "sklearn", "matplotlib"}
    code = f"import sys, ssl_lab; dir(ssl_lab); print(sorted(sys.modules.keys() & {heavy}))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
