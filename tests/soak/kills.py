"""Kill trainings at random moments with random signals, start them again, and compare every file with a training left alone.

    python tests/soak/kills.py --kills 100 --seed 0

Every method and every task of fine-tuning is trained once in peace, with evaluations on. Then the same command starts in a
new folder and is killed again and again: half of the times at any moment, otherwise in the last quarter of its time, where it
is judged. After a given number of kills it is left to finish. Every file must be as in peace: weights, optimizers, random
streams, position in the data, metrics, evaluation, summary, configuration, pictures, report and caches, with times within
reason and nothing left over. Each life is a fork of one process that has imported everything. ``--keep FOLDER`` keeps what
is not as in peace.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from soak import forks  # noqa: E402
from soak.compare import differences  # noqa: E402
from soak.points import Workshop  # noqa: E402
from soak.trainings import TRAININGS  # noqa: E402

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def kill_once(shop, command, seconds, draw):
    """Kill a life that would last so many seconds: the signal, when, and how it ended; None if it finished before."""
    number, late = draw.choice(SIGNALS), draw.random() < 0.5
    wait = draw.uniform(0.75 * seconds if late else 0, seconds)
    life = forks.Life(command.args, shop.work)
    ended = life.wait(wait)
    if ended is None:
        life.send(number)
        ended = life.end()
        return None if number == signal.SIGKILL and ended.code == 0 else (number.name, wait, ended)
    if ended.code != 0:
        raise AssertionError(f"{command.name} failed by itself:\n{ended.output[-3000:]}")
    return None


def killed(shop, command, number, draw, say):
    """Kill a command up to ``number`` times, then let it finish; signals of the kills, and what is not as in peace."""
    _, peace = shop.in_peace(command)
    shop.ready(command)
    names, faults = [], []
    seconds = left = shop.seconds[command.name]
    while len(names) < number:
        found = kill_once(shop, command, left, draw)
        if found is None and names:
            break
        if found is None:  # the machine was faster than in peace
            shop.ready(command)
            continue
        name, wait, ended = found
        names.append(name)
        say(f"    {name} after {wait:.2f} of {left:.1f} s: ends with {ended.code}")
        if "Traceback" in ended.output:
            faults.append(f"{name} left a traceback:\n{ended.output[-3000:]}")
        left = max(left - wait, 0.3 * seconds)  # the next life resumes
    last = forks.run(command.args, shop.work)
    if last.code != 0:
        return names, [*faults, f"started again it ends with {last.code}:\n{last.output[-3000:]}"]
    if "Traceback" in last.output:
        faults.append(f"started again it leaves a traceback:\n{last.output[-3000:]}")
    return names, faults + differences(shop.work, peace, unlike=command.unlike)


def soak(folder, *, kills, seed, kills_per_run, trainings, say=print):
    """Signals of all kills, and the faults of all runs."""
    shop, draw = Workshop(folder, say), random.Random(seed)
    signals, runs = [], {}
    while len(signals) < kills:
        for command in trainings:
            if len(signals) >= kills:
                break
            found, faults = killed(shop, command, min(kills_per_run, kills - len(signals)), draw, say)
            signals += found
            name = f"{command.name}_{len(runs)}"
            runs[name] = faults
            told = "every file as in peace" if not faults else "NOT as in peace:\n    " + "\n    ".join(faults[:8])
            say(f"{name} after {len(found)} kills, {len(signals)} in all: {told}")
            if faults:
                shop.work.rename(shop.folder / f"fault_{name}")
    return signals, runs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = {command.name: command for command in TRAININGS}
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kills-per-run", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", choices=names, default=list(names), metavar="NAME")
    parser.add_argument("--keep", type=Path, help="folder to work in, which stays")
    args = parser.parse_args()
    began = time.monotonic()
    forks.warm_up()

    def say(line):
        print(line, flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        trainings = [names[name] for name in args.commands]
        settings = {"kills": args.kills, "seed": args.seed, "kills_per_run": args.kills_per_run}
        signals, runs = soak(folder, **settings, trainings=trainings, say=say)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(Counter(signals).items()))
    good, commands = sum(not faults for faults in runs.values()), len({name.rpartition("_")[0] for name in runs})
    say(
        f"{len(signals)} kills ({counts}) of {len(runs)} runs of {commands} commands: {good} of {len(runs)} ended with every "
        f"file as in peace. {time.monotonic() - began:.0f} s."
    )
    return int(good < len(runs))


if __name__ == "__main__":
    sys.exit(main())
