"""Hydra's parser under the check of help texts that argparse has from Python 3.14 on, written here as it behaves."""

import argparse
import sys

import pytest
from hydra._internal.utils import get_args_parser

from ssl_lab.cli.python314 import allow_lazy_help


@pytest.fixture
def checking(monkeypatch):
    """Add the check to an older argparse: each option's help is expanded when it is added."""
    container = argparse._ActionsContainer
    if sys.version_info >= (3, 14):
        monkeypatch.setattr(container, "_check_help", container._check_help)  # restored afterwards
        return

    def check_help(self, action):
        try:
            if action.help and "%" in action.help:
                action.help % {"prog": "x", "default": None}
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError("badly formed help string") from error

    add = container.add_argument

    def add_and_check(self, *args, **kwargs):
        action = add(self, *args, **kwargs)
        self._check_help(action)
        return action

    monkeypatch.setattr(container, "_check_help", check_help, raising=False)
    monkeypatch.setattr(container, "add_argument", add_and_check)


def test_hydras_lazy_help_is_let_through_and_other_help_is_checked(checking):
    with pytest.raises(ValueError, match="badly formed help"):
        get_args_parser()
    allow_lazy_help()
    allow_lazy_help()
    parsed = get_args_parser().parse_args(["method=vae", "--cfg", "job"])
    assert parsed.overrides == ["method=vae"] and parsed.cfg == "job"
    with pytest.raises(ValueError, match="badly formed help"):
        argparse.ArgumentParser().add_argument("--share", help="50%")
