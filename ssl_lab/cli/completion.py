"""Tab completion in bash: our commands, then Hydra's completion of overrides."""

from __future__ import annotations

import os
import sys

from ssl_lab.cli.commands import COMMANDS

SCRIPT = """_ssl_lab() {
    mapfile -t COMPREPLY < <(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" ssl-lab -sc query=bash 2>/dev/null)
    [[ ${#COMPREPLY[@]} == 1 && ( ${COMPREPLY[0]} == *= || ${COMPREPLY[0]} == */ || ${COMPREPLY[0]} == *. ) ]] &&
        compopt -o nospace
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
COMP_WORDBREAKS=$COMP_WORDBREAKS complete -o default -F _ssl_lab ssl-lab
"""

_OPTIONS = {
    "runs": ("best", "--status", "--sort", "--limit", "--json", "--min"),
    "leaderboard": ("--metric", "--protocol", "--data", "--out", "--update"),
    "dashboard": ("--out", "--port", "--host", "--open"),
}


def complete(request: str) -> int:
    """Answer ``install=bash`` with a script, ``query=bash`` with the completions of $COMP_LINE."""
    if request == "install=bash":
        print(SCRIPT)
        return 0
    if request != "query=bash":
        print("ssl-lab: -sc takes install=bash or query=bash.", file=sys.stderr)
        return 1
    line = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "100000"))]
    print("\n".join(completions(line)))
    return 0


def completions(line: str) -> list[str]:
    """List the possible next words of a command line that begins with ``ssl-lab``."""
    words = line.split(" ")
    if len(words) <= 2:
        return [name for name in COMMANDS if name.startswith(words[-1])]
    command = words[1]
    if command == "list":
        from ssl_lab.cli.commands.list import TITLES

        return [name for name in TITLES if name.startswith(words[-1])]
    if command in _OPTIONS:
        return [word for word in _OPTIONS[command] if word.startswith(words[-1])] if words[-1] else []
    if command == "report" or command not in COMMANDS:
        return []
    return _overrides(command, " ".join(words[2:]))


def _overrides(config_name: str, line: str) -> list[str]:
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra
    from hydra.plugins.completion_plugin import DefaultCompletionPlugin

    from ssl_lab.cli.paths import config_dir

    hydra = Hydra.create_main_hydra2(config_name, create_config_search_path(str(config_dir())))
    try:
        plugin = DefaultCompletionPlugin(hydra.config_loader)
        return plugin._query(config_name=config_name, line=line)
    finally:
        GlobalHydra.instance().clear()
