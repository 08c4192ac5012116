"""``ssl-lab leaderboard``: results of many runs in tables. Reads run directories and imports nothing slow."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ssl_lab.cli.arguments import Parser, path_argument
from ssl_lab.report.leaderboard import Leaderboard
from ssl_lab.report.leaderboard import leaderboard as read_leaderboard
from ssl_lab.report.leaderboard_files import as_markdown, files_of, update_blocks, write_leaderboard


def run(args: list[str]) -> int:
    """Print the tables, write them to files, or renew those in a Markdown file."""
    parser = Parser(
        prog="ssl-lab leaderboard",
        description="Make tables of the results of all runs below some folders. Runs that differ only in their seed share a "
        "row, with mean, deviation and the command that repeats them.",
    )
    parser.add_argument("folders", nargs="*", type=path_argument, metavar="DIR", help="where to look (default: runs)")
    _add_choices(parser)
    parser.add_argument(
        "--out", type=path_argument, help="a folder for Markdown, CSV and HTML; or a .md, .csv or .html file"
    )
    parser.add_argument("--update", type=path_argument, action="append", metavar="FILE.md", default=[],
                        help="update the tables between <!-- leaderboard: OPTIONS --> and <!-- end --> in a Markdown file; "
                        "may be repeated")  # fmt: skip
    parsed = parser.parse_intermixed_args(args)
    folders = parsed.folders or [Path("runs")]
    if parsed.out is not None:
        files_of(parsed.out)  # refused before runs are read
    for path in parsed.update:
        num, kept = update_blocks(path, lambda options: _of_block(folders, parsed, options))
        print("\n".join([f"{path}: {num} table{'s' * (num != 1)} renewed.", *kept]))
    if parsed.update and parsed.out is None:
        return 0
    found = _read(folders, parsed)
    if parsed.out is None:
        print(as_markdown(found), end="")
    else:
        print("\n".join(map(str, write_leaderboard(found, parsed.out))))
    return 0


def _add_choices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--metric", action="append", default=[], metavar="NAME",
                        help="show this metric, such as linear/top1; may be repeated, the first one sorts")  # fmt: skip
    parser.add_argument("--protocol", action="append", default=[], metavar="NAME",
                        help="show the metrics of this protocol, such as knn; may be repeated")  # fmt: skip
    parser.add_argument("--data", action="append", default=[], metavar="WORD",
                        help="only data sets whose title holds this; may be repeated")  # fmt: skip


def _read(folders: Sequence[Path], choices: argparse.Namespace) -> Leaderboard:
    return read_leaderboard(folders, metrics=choices.metric, protocols=choices.protocol, data=choices.data)


def _of_block(folders: Sequence[Path], parsed: argparse.Namespace, options: list[str]) -> Leaderboard:
    """The tables of a block: its own options, or those of the command where it has none."""
    parser = argparse.ArgumentParser(prog="<!-- leaderboard: -->", exit_on_error=False)
    _add_choices(parser)
    try:
        choices, unknown = parser.parse_known_args(options)
    except argparse.ArgumentError as error:
        raise ValueError(f"its options cannot be read ({error})") from error
    if unknown:
        raise ValueError(f"there is no option {unknown[0]}; known are --metric, --protocol and --data.")
    return _read(folders, choices if options else parsed)
