"""``ssl-lab report``."""

from __future__ import annotations

from pathlib import Path

from ssl_lab.cli.arguments import Parser, path_argument


def run(args: list[str]) -> int:
    """Write a run's report, or a comparison of several runs."""
    parser = Parser(prog="ssl-lab report", description="Make report pages from run directories.")
    parser.add_argument(
        "runs", nargs="+", type=path_argument, metavar="DIR", help="run directory; several are compared"
    )
    parser.add_argument(
        "--out", type=path_argument, help="page of one run, or page that compares several (comparison.html)"
    )
    parsed = parser.parse_args(args)
    from ssl_lab.limited import printable
    from ssl_lab.outputs import check_output, clear
    from ssl_lab.report.page import IS_PAGE, write_comparison, write_report
    from ssl_lab.runs.read import read_run

    if len(parsed.runs) == 1 and parsed.out is not None:
        check_output(parsed.out, setting="--out", ours=IS_PAGE)
        clear(parsed.out, runs=parsed.runs)
        print(printable(str(write_report(parsed.runs[0], parsed.out))))
        return 0
    for run in parsed.runs:
        read_run(run)  # before the report of another is written
    comparison = parsed.out or Path("comparison.html")
    if len(parsed.runs) > 1:
        check_output(comparison, setting="--out", ours=IS_PAGE)
    for run in parsed.runs:
        if run.is_dir():
            check_output(run / "report.html", instead="Name this run alone, with --out FILE.html.")
    clear(*([comparison] if len(parsed.runs) > 1 else []), runs=parsed.runs)
    for run in parsed.runs:
        print(printable(str(write_report(run))))
    if len(parsed.runs) > 1:
        print(printable(str(write_comparison(parsed.runs, comparison))))
    return 0


def make_up_report(run_dir: Path) -> None:
    """Write the report of a run whose process died between its end and the report, and end its log as any other."""
    from ssl_lab.engine.logging.text_log import text_log
    from ssl_lab.report.page import is_current, write_report

    if not is_current(run_dir):
        with text_log(run_dir):
            write_report(run_dir)
