"""R-01 and R-02 with the datastore in S3: a driver killed anywhere, and gone on from everywhere.

python -m tests.faults.remote_kills [--kills N] [--seed S] [--points] [--record FILE]

A trial runs the flow on one machine and kills the driver: at a seeded point of its progress, or
with --points at each passage of each crash point of shipping. What others can see then must be
sound. Another machine resumes: what was shipped is reused, the rest done again. Then the first one
resumes, which loses and repeats nothing at all; and a third, which has seen none of it, reads it.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from engine.crashpoints import REMOTE_POINTS
from tests.faults.crashes import Digests, Tally, Undisturbed
from tests.faults.remote_site import RemoteSite, Variables, own_server, say, url_of
from tests.reliability.record import add_record_option, write_record

LATER_S = 0.5  # about as long as shipping goes on after the last task
Kill = Callable[[RemoteSite], int]
"""Runs the flow on a machine, kills its driver, and returns the exit code."""


def killed_at(tasks: int, later_s: float, site: RemoteSite) -> int:
    """Kill when so many tasks have begun, a moment later."""
    process = site.begin(["run", "nested.py"])
    while process.poll() is None and len(site.executed()) < tasks:
        time.sleep(0.005)
    time.sleep(later_s)
    process.kill()
    code = process.wait(timeout=60)
    site.ended()
    return code


def crashed_at(point: str, passage: int, site: RemoteSite) -> int:
    return site.call(["run", "nested.py"], AFLOW_CRASH_AT=f"{point}:{passage}")


def trial(folder: Path, variables: Variables, kill: Kill, expected: Digests) -> Tally:
    """Kill one run and go on from it on two machines, and read it on a third."""
    url = url_of(folder)
    here, there, third = (RemoteSite(folder / name, url, variables) for name in ("a", "b", "c"))
    code = kill(here)
    mine = here.runs()
    total, problems = Tally(kills=int(code < 0)), []
    if code > 0:
        problems.append(f"the run ended with {code}: {here.said()}")
    if problem := there.check():
        problems.append(f"as it was killed: {problem}")
    for site, words in (
        (there, there.next_words),
        (here, ["resume", mine[-1].run_id] if mine and mine[-1].began else ["run", "nested.py"]),
    ):
        if code := site.call(words):
            problems.append(f"{' '.join(words)} ended with {code}: {site.said()}")
            continue
        done = site.verdict(expected)
        problems += [f"{site.folder.name}: {problem}" for problem in done.problems]
        done.problems = []
        total.add(done)
    if problem := third.check():
        problems.append(f"from a third machine: {problem}")
    elif third.runs()[-1].digests != expected:
        problems.append("from a third machine the artifacts differ")
    total.trials, total.problems = 1, problems
    return total


def campaign(
    folder: Path, variables: Variables, kills: int, seed: int, *, tell: bool = False
) -> Tally:
    """Trials at seeded points of progress until there were so many kills."""
    undisturbed = _undisturbed(folder, variables)
    total, number = Tally(), 0
    while total.kills < kills and number < 3 * kills:
        chance = random.Random(seed * 1_000_003 + number)
        tasks = chance.randint(0, len(undisturbed.digests))
        later_s = round(chance.uniform(0, LATER_S), 3)
        kill = partial(killed_at, tasks, later_s)
        done = trial(folder / str(number), variables, kill, undisturbed.digests)
        done.problems = [f"killed {later_s} s after {tasks} tasks: {p}" for p in done.problems]
        total.add(done)
        number += 1
        if tell:
            say(f"{number}: {total}", *done.problems)
    return total


def points(folder: Path, variables: Variables, *, most: int = 10_000) -> dict[str, Tally]:
    """A trial for each passage of each crash point of shipping."""
    expected = _undisturbed(folder, variables).digests
    found = {}
    for point in REMOTE_POINTS:
        total = found[point] = Tally()
        for passage in range(1, most + 1):
            place = folder / f"{point}-{passage}"
            done = trial(place, variables, partial(crashed_at, point, passage), expected)
            done.problems = [f"{point}:{passage}: {p}" for p in done.problems]
            total.add(done)
            if not done.kills:
                break
        say(f"{point:20} {total}", *total.problems)
    return found


def _undisturbed(folder: Path, variables: Variables) -> Undisturbed:
    place = folder / "undisturbed"
    return Undisturbed.run(RemoteSite(place, url_of(place), variables))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--points", action="store_true", help="at crash points")
    add_record_option(parser)
    options = parser.parse_args()
    began, counts = time.monotonic(), {}
    with own_server() as (server, place), tempfile.TemporaryDirectory(dir=place) as name:
        if options.points:
            found = points(Path(name), server.variables)
            total = Tally()
            for each in found.values():
                total.add(each)
            counts = {"crash points of S3": sum(each.kills > 0 for each in found.values())}
        else:
            total = campaign(Path(name), server.variables, options.kills, options.seed, tell=True)
    say(f"seed {options.seed}: {total}, {time.monotonic() - began:.0f} s")
    counts |= {f"{what}, in S3": n for what, n in total.counts().items()}
    row = "R-02" if options.points else "R-01"
    write_record(options.record, row, counts, passed=not total.problems)
    return int(bool(total.problems))


if __name__ == "__main__":
    sys.exit(main())
