"""Play seeds: `python -m tests.sim.run --seeds 1000 --start 0 [--trace]`.

A seed that fails prints the line that replays it. Exit code 1 if any failed.
"""

import argparse
import sys
import time
import traceback
from collections import Counter

from tests.sim.simulation import simulate


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first")
    parser.add_argument("--trace", action="store_true", help="print what happened in each")
    options = parser.parse_args(arguments)
    say = sys.stdout.write
    began, failed, seen = time.perf_counter(), 0, Counter[str]()
    for seed in range(options.start, options.start + options.seeds):
        try:
            story = simulate(seed)
        except Exception:  # noqa: BLE001 - whatever it was, the seed is what helps
            failed += 1
            say(traceback.format_exc())
            say(f"seed {seed} failed; replay: python -m tests.sim.run --seeds 1 --start {seed}\n")
            continue
        seen += story.seen
        if options.trace:
            say("\n".join([f"seed {seed} {story.digest}", *story.lines, ""]))
    spent_s = time.perf_counter() - began
    say(", ".join(f"{what}: {count:,}" for what, count in seen.most_common()) + "\n")
    say(f"{options.seeds:,} seeds, {failed} failed, {spent_s:.1f} s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
