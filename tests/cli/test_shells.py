"""Completion by the tab key in shells that are installed."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import pytest

from ssl_lab.cli.completion import SCRIPTS
from ssl_lab.cli.main import main

LINES = [
    ("ssl-lab pretr", "ssl-lab pretrain "),
    ("ssl-lab pretrain method=simcl", "ssl-lab pretrain method=simclr"),
    ("ssl-lab pretrain method=vae method.lat", "ssl-lab pretrain method=vae method.latent_dim="),
    ("ssl-lab pretrain experiment=vae_di", "ssl-lab pretrain experiment=vae_digits "),
]


@pytest.fixture
def home(tmp_path):
    """An empty home in which the command is found."""
    command = tmp_path / "ssl-lab"
    command.write_text(f"#!{sys.executable}\nfrom ssl_lab.cli.main import main\nraise SystemExit(main())\n")
    command.chmod(0o755)
    return tmp_path


def environment(home):
    return {**os.environ, "PATH": f"{home}:{os.environ['PATH']}", "HOME": str(home), "TERM": "dumb", "PS1": "$ "}


def typed(command, install, line, expected, home):
    """What a shell shows after a line and the tab key, in a terminal of our own."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(home)
        os.execvpe(command[0], command, environment(home))
    try:
        os.write(terminal, f"{install}; echo rea''dy\n".encode())
        wait_for(terminal, "ready\r\n")
        os.write(terminal, f"{line}\t".encode())
        return wait_for(terminal, expected)
    finally:
        os.close(terminal)
        os.kill(process, 9)
        os.waitpid(process, 0)


def wait_for(terminal, text):
    """Output up to a text, without control sequences, or what there is after a while."""
    shown, end = "", time.monotonic() + 40
    while text not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
            shown = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", shown)
    return shown


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_bash_offers(line, expected, home):
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    call = (
        f"{SCRIPTS['bash']}\nCOMP_LINE='{line}' COMP_POINT={len(line)} _ssl_lab 2>/dev/null; printf '%s\\n' $COMPREPLY"
    )
    done = subprocess.run(["bash", "-c", call], capture_output=True, text=True, env=environment(home), timeout=60)
    assert expected.split()[-1] in done.stdout.splitlines()


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_fish_offers(line, expected, home):
    if shutil.which("fish") is None:
        pytest.skip("needs fish")
    call = f"ssl-lab -sc install=fish | source; complete -C '{line}'"
    done = subprocess.run(["fish", "-c", call], capture_output=True, text=True, env=environment(home), timeout=60)
    offered = [one.split("\t")[0] for one in done.stdout.splitlines()]
    assert expected.split()[-1] in offered, done.stderr


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_zsh_completes(line, expected, home):
    if shutil.which("zsh") is None:
        pytest.skip("needs zsh")
    assert expected in typed(["zsh", "-f", "-i"], 'eval "$(ssl-lab -sc install=zsh)"', line, expected, home)


@pytest.mark.parametrize("request_", ["install=tcsh", "query", "uninstall=bash", ""])
def test_other_shells_are_refused(request_, capsys):
    assert main(["-sc", request_]) == 1
    assert "SHELL is one of bash, zsh, fish" in capsys.readouterr().err
