"""Kill commands at chosen changes of files, run them again, and compare every file with what they leave in peace.

    python tests/soak/points.py --kills 110 --seed 0

One process imports everything once and forks for each life of a command. In the fork an audit hook counts each file that is
opened for writing, renamed, linked or removed and each folder that is made or removed below the working folder. Before the
n-th of these changes the fork and all it has started are killed, so that every state of the disk between two changes can be
met. Then the same command runs again, and every file has to be as if nothing had happened.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from soak import forks  # noqa: E402
from soak.commands import COMMANDS, RUNS, write_text  # noqa: E402
from soak.compare import differences, different, files  # noqa: E402


class Workshop:
    """Templates of what commands need, and one working folder, so that all paths in files agree.

    Args:
        folder: Where all of it lies.
        say: Told what happens.
        runs: Names of the finished runs that commands find.
    """

    def __init__(self, folder, say=print, runs=tuple(RUNS)):
        self.folder, self.say, self.runs = Path(folder), say, runs
        self.work = self.folder / "work"
        self.templates, self.peace, self.events, self.seconds = {}, {}, {}, {}

    def template(self, needs):
        """A folder with what a command needs; made when it is first asked for."""
        key = "_".join(needs) or "empty"
        if key not in self.templates:
            forks.fresh(None, self.work)
            if needs:
                write_text(self.work)
            text = list(self.work.iterdir())
            if "runs" in needs:
                for name in self.runs:
                    self._must(RUNS[name], f"the run {name}")
            if "text" not in needs:
                for path in text:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.templates[key] = self.folder / f"template_{key}"
            self.work.rename(self.templates[key])
        return self.templates[key]

    def ready(self, command):
        """The working folder as the command finds it."""
        forks.fresh(self.template(command.needs), self.work)
        for args in command.before:
            self._must(args, f"what {command.name} finds")

    def in_peace(self, command):
        """What the command leaves if nothing disturbs it, and the changes that it makes on the way."""
        if command.name not in self.peace:
            self.ready(command)
            before = self.folder / f"before_{command.name}"
            shutil.copytree(self.work, before, symlinks=True)
            ended = self._must(command.args, command.name)
            if command.again:
                self._must(command.again, command.name)
            peace = self.folder / f"peace_{command.name}"
            self.work.rename(peace)
            self.peace[command.name] = (before, peace)
            self.events[command.name], self.seconds[command.name] = ended.events, ended.seconds
            self.say(f"{command.name} in peace: {len(ended.events)} changes, {ended.seconds:.1f} s")
        return self.peace[command.name]

    def _must(self, args, what):
        ended = forks.run(args, self.work)
        if ended.code != 0:
            raise AssertionError(f"{what} ended with {ended.code}:\n{ended.output[-3000:]}")
        return ended

    def kill(self, command, point, number=signal.SIGKILL):
        """Kill the command before its ``point``-th change, run it again; what is not as it should be."""
        before, peace = self.in_peace(command)
        forks.fresh(before, self.work)
        ended = forks.run(command.args, self.work, kill_at=point, number=number)
        if number == signal.SIGKILL and ended.code != -signal.SIGKILL:
            return [] if ended.code == 0 else [f"failed by itself:\n{ended.output[-2000:]}"]
        faults = [f"left a traceback:\n{ended.output[-2000:]}"] if "Traceback" in ended.output else []
        faults += [f"after the kill {fault}" for path in command.kept for fault in self._lost(path, before, peace)]
        again = forks.run(command.again or command.args, self.work)
        if again.code != 0:
            return [*faults, f"started again it ends with {again.code}: {again.output.strip()[-1500:]}"]
        if "Traceback" in again.output:
            faults.append(f"started again it leaves a traceback:\n{again.output[-2000:]}")
        return faults + differences(self.work, peace, unlike=command.unlike)

    def _lost(self, path, before, peace):
        """Whether what was at a path before is neither there, old or new, nor kept beside it."""
        wanted = [folder / path for folder in (before, peace)]
        there = self.work / path
        candidates = [there, *(other for other in there.parent.iterdir() if path.rpartition("/")[2] in other.name)]
        for candidate in candidates:
            if any(self._equal(candidate, each) for each in wanted):
                return []
        return [f"{path} is lost: there are {sorted(other.name for other in there.parent.iterdir())}"]

    @staticmethod
    def _equal(found, wanted):
        if not found.exists() or found.is_dir() != wanted.is_dir():
            return False
        if found.is_dir():
            mine, theirs = files(found), files(wanted)
            return mine.keys() == theirs.keys() and not any(different(mine[name], theirs[name]) for name in mine)
        return not different(found, wanted)


def soak(folder, *, kills, seed, commands=None, signals=(signal.SIGKILL,), say=print, runs=tuple(RUNS)):
    """Kill each command in turn, at moments spread over its changes; rows of all kills, each with its faults."""
    shop, draw, rows = Workshop(folder, say, runs), random.Random(seed), []
    chosen = [command for command in COMMANDS if commands is None or command.name in commands]
    plan = []
    each, more = divmod(kills, len(chosen))
    for place, command in enumerate(chosen):
        number = each + (place < more)
        if number == 0:  # fewer kills than commands
            continue
        shop.in_peace(command)
        total = len(shop.events[command.name])
        edges = [1 + total * k / number for k in range(number + 1)]
        for low, high in zip(edges, edges[1:], strict=False):  # one kill in each stretch of the command
            plan.append((command, min(int(draw.uniform(low, high)), total)))
    for command, point in plan:
        number = draw.choice(signals)
        faults = shop.kill(command, point, number)
        name = signal.Signals(number).name
        event = shop.events[command.name][point - 1]
        rows.append({"command": command.name, "point": point, "event": event, "signal": name, "faults": faults})
        told = "as in peace" if not faults else "NOT as in peace:\n    " + "\n    ".join(faults[:8])
        say(f"kill {len(rows)} of {command.name}: {name} before change {point} ({event}): {told}")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=110)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", choices=[command.name for command in COMMANDS], metavar="NAME")
    parser.add_argument("--signals", nargs="+", default=["SIGKILL"], choices=["SIGKILL", "SIGTERM", "SIGINT"])
    parser.add_argument("--point", type=int, help="kill the one command of --commands before this change alone")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=RUNS, help="finished runs that are there")
    parser.add_argument("--keep", type=Path, help="folder to work in, which stays")
    args = parser.parse_args()
    began = time.monotonic()
    forks.warm_up()
    print(f"warm after {time.monotonic() - began:.1f} s", flush=True)

    def say(line):
        print(line, flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        os.makedirs(folder, exist_ok=True)
        if args.point is not None:
            (command,) = (command for command in COMMANDS if command.name in args.commands)
            shop = Workshop(folder, say, args.runs)
            faults = shop.kill(command, args.point, signal.Signals[args.signals[0]])
            say("\n".join(faults) or "as in peace")
            return bool(faults)
        signals = [signal.Signals[name] for name in args.signals]
        chosen = {"commands": args.commands, "signals": signals, "runs": args.runs}
        rows = soak(folder, kills=args.kills, seed=args.seed, **chosen, say=say)
    good, commands = sum(not row["faults"] for row in rows), len({row["command"] for row in rows})
    say(
        f"{len(rows)} kills of {commands} commands: after {good} of {len(rows)} every file is as in peace. "
        f"{time.monotonic() - began:.0f} s."
    )
    return int(good < len(rows))


if __name__ == "__main__":
    sys.exit(main())
