"""The table of an evaluation as plain values."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any


class Results(dict[str, dict[str, float]]):
    """Metrics by row: ``results["SimCLR encoder"]["knn/top1"]``.

    It is a plain dict, in the order of the table: raw input, the encoder before training, what was trained. Shown, it is
    the table of the command. ``pandas.DataFrame(results).T`` has a row for each.

    Args:
        evaluation: What ``evaluation.json`` holds.
    """

    def __init__(self, evaluation: Mapping[str, Any]) -> None:
        super().__init__({row["name"]: dict(row["metrics"]) for row in evaluation.get("rows", [])})
        self._evaluation = evaluation

    def __repr__(self) -> str:
        """The table of the command."""
        if not self:
            return "nothing was measured"
        from rich.console import Console

        from ssl_lab.report.tables import results_table

        text = io.StringIO()
        Console(file=text, width=120).print(results_table(dict(self._evaluation)))
        return text.getvalue().rstrip()
