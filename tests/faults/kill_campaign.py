"""R-01: a driver killed with SIGKILL at seeded instants, and resumed at once.

python -m tests.faults.kill_campaign [--kills N] [--seed S] [--record FILE]

The flow has 203 tasks in a nested foreach. A trial runs it and kills the driver at an instant from
its first to its last; then resumes, and kills some of the resumed runs, too, until one ends.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.crashes import Site, Tally, Undisturbed
from tests.reliability.record import add_record_option, write_record

OUTER, INNER = 10, 18
KILL_AGAIN = 0.4  # how often a resumed run is killed, too


def trial(folder: Path, chance: random.Random, undisturbed: Undisturbed) -> Tally:
    """Kill and resume one run until it ends."""
    site = Site(folder, outer=OUTER, inner=INNER)
    words, kills, instants, problems = ["run", "nested.py"], 0, [], []
    while True:
        process = site.begin(words)
        if not kills or chance.random() < KILL_AGAIN:
            # The interpreter's start is no part of the run; most instants lie after it.
            instants.append(round(chance.triangular(0, 1.1, 0.6) * undisturbed.took_s, 4))
            time.sleep(instants[-1])
            process.kill()
        code = process.wait(timeout=60)
        site.ended()
        kills += code < 0
        if code > 0:
            problems.append(f"{' '.join(words)} ended with {code}: {site.said()}")
        if code >= 0:
            break
        words = site.next_words
    tally = site.verdict(undisturbed.digests)
    tally.kills = kills
    tally.problems = [f"killed after {instants} s: {p}" for p in [*problems, *tally.problems]]
    return tally


def campaign(folder: Path, kills: int, seed: int, *, tell: bool = False) -> Tally:
    """Trials until there were so many kills."""
    undisturbed = Undisturbed.run(Site(folder / "undisturbed", outer=OUTER, inner=INNER))
    total, number = Tally(), 0
    while total.kills < kills and number < 3 * kills:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            done = trial(Path(name) / "site", random.Random(seed * 1_000_003 + number), undisturbed)
        total.add(done)
        number += 1
        if tell and (done.problems or number % 25 == 0):
            print(f"{number}: {total}", *done.problems, sep="\n    ", flush=True)  # noqa: T201
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    add_record_option(parser)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        total = campaign(Path(name), options.kills, options.seed, tell=True)
    print(f"seed {options.seed}: {total}, {time.monotonic() - began:.0f} s")  # noqa: T201
    write_record(options.record, "R-01", total.counts(), passed=not total.problems)
    return int(bool(total.problems))


if __name__ == "__main__":
    sys.exit(main())
