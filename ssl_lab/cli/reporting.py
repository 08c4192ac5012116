"""``ssl-lab report``."""

from __future__ import annotations

import argparse
from pathlib import Path


def report(args: list[str]) -> int:
    """Write a run's report, or a comparison of several runs."""
    parser = argparse.ArgumentParser(prog="ssl-lab report", description="Make report pages from run directories.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("comparison.html"), help="page that compares several runs")
    parsed = parser.parse_args(args)
    from ssl_lab.report.page import write_comparison, write_report

    for run in parsed.runs:
        print(write_report(run))
    if len(parsed.runs) > 1:
        print(write_comparison(parsed.runs, parsed.out))
    return 0
