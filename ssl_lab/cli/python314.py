"""Hydra 1.3 on Python 3.14, whose argparse expands the help of each option when it is added.

The help of ``--shell-completion`` is an object of Hydra's that becomes text when it is shown, which the check refuses as a
badly formed string: without this module no run starts (facebookresearch/hydra#3121).
"""

from __future__ import annotations

import argparse
from typing import Any

_CHECK = "_check_help"


def allow_lazy_help() -> None:
    """Let argparse skip its check of help that is not text. Changes nothing before Python 3.14."""
    container: Any = argparse._ActionsContainer
    check = getattr(container, _CHECK, None)
    if check is None or hasattr(check, "checks_text_alone"):
        return

    def check_text(self: Any, action: argparse.Action) -> None:
        if action.help is None or isinstance(action.help, str):
            check(self, action)

    check_text.checks_text_alone = True  # type: ignore[attr-defined]
    setattr(container, _CHECK, check_text)
