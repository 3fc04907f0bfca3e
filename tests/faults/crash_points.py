"""R-02: crash at every commit boundary, resume at once, hold what is left against the oracle.

python -m tests.faults.crash_points [--at NAME] [--most N] [--record FILE]

runs every passage of every point.

A passage is counted over the driver and its tasks together, so which process is the n-th to pass
changes from run to run; that the n-th is hit does not. A point is done when a run passes it fewer
than n times and so ends well.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from engine.crashpoints import POINTS
from tests.faults.crashes import Digests, Site, Tally, Undisturbed
from tests.reliability.record import add_record_option, write_record


def trial(folder: Path, point: str, passage: int, expected: Digests) -> Tally:
    """Crash one run at one passage and resume it. No kill is counted if it was not reached."""
    site = Site(folder)
    code = site.call(["run", "nested.py"], AFLOW_CRASH_AT=f"{point}:{passage}")
    kills = int(code != 0)
    problems = []
    if code and (code := site.call(site.next_words)):
        problems.append(f"the resumed run ended with {code}: {site.said()}")
    tally = site.verdict(expected)
    tally.kills += kills
    tally.problems = [f"{point}:{passage}: {p}" for p in [*problems, *tally.problems]]
    return tally


def every_passage(folder: Path, point: str, expected: Digests, most: int) -> Tally:
    total = Tally()
    for passage in range(1, most + 1):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            done = trial(Path(name) / "site", point, passage, expected)
        total.add(done)
        if not done.kills:
            break
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at", choices=POINTS, help="this point only")
    parser.add_argument("--most", type=int, default=10_000, help="passages of each point")
    add_record_option(parser)
    options = parser.parse_args()
    total, hit, began = Tally(), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = Undisturbed.run(Site(folder / "undisturbed")).digests
        for point in [options.at] if options.at else POINTS:
            done = every_passage(folder, point, expected, options.most)
            hit += done.kills > 0
            print(f"{point:28} {done}", *done.problems, sep="\n    ", flush=True)  # noqa: T201
            total.add(done)
    print(f"{hit} points hit, {total}, {time.monotonic() - began:.0f} s")  # noqa: T201
    counts = {"crash points": hit, **total.counts()}
    write_record(options.record, "R-02", counts, passed=not total.problems)
    return int(bool(total.problems))


if __name__ == "__main__":
    sys.exit(main())
