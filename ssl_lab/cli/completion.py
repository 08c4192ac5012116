"""Tab completion in bash, zsh and fish: our commands, then Hydra's completion of overrides."""

from __future__ import annotations

import os
import sys

from ssl_lab.cli.commands import COMMANDS

_BASH = """_ssl_lab() {
    mapfile -t COMPREPLY < <(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" ssl-lab -sc query=bash 2>/dev/null)
    [[ ${#COMPREPLY[@]} == 1 && ( ${COMPREPLY[0]} == *= || ${COMPREPLY[0]} == */ || ${COMPREPLY[0]} == *. ) ]] &&
        compopt -o nospace
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
COMP_WORDBREAKS=$COMP_WORDBREAKS complete -o default -F _ssl_lab ssl-lab
"""

_ZSH = """(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_ssl_lab() {
    local -a found open
    found=(${(f)"$(COMP_LINE="$LBUFFER" ssl-lab -sc query=zsh 2>/dev/null)"})
    open=(${(M)found:#*[=/.]})
    found=(${found:#*[=/.]})
    (( $#open + $#found )) || { _files; return }
    compadd -Q -S '' -a open
    compadd -Q -a found
    return 0
}
compdef _ssl_lab ssl-lab
"""

_FISH = """function __ssl_lab_complete
    set -lx COMP_LINE (commandline -cp)
    ssl-lab -sc query=fish 2>/dev/null
end
complete -c ssl-lab -a '(__ssl_lab_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

_OPTIONS = {
    "runs": ("best", "--status", "--sort", "--limit", "--json", "--min"),
    "leaderboard": ("--metric", "--protocol", "--data", "--out", "--update"),
    "dashboard": ("--out", "--port", "--host", "--open"),
}


def complete(request: str) -> int:
    """Answer ``install=SHELL`` with a script, ``query=SHELL`` with the completions of $COMP_LINE."""
    action, _, shell = request.partition("=")
    if action not in ("install", "query") or shell not in SCRIPTS:
        shells = ", ".join(SCRIPTS)
        print(f"ssl-lab: -sc takes install=SHELL or query=SHELL, where SHELL is one of {shells}.", file=sys.stderr)
        return 1
    if action == "install":
        print(SCRIPTS[shell])
        return 0
    line = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "100000"))]
    print("\n".join(completions(line)))
    return 0


def completions(line: str) -> list[str]:
    """List the possible next words of an ``ssl-lab`` command line."""
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
