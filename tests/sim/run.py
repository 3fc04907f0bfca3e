"""Play seeds: `python -m tests.sim.run --seeds 10000 [--start 0] [--jobs 2] [--trace]`.

A seed that fails prints the line that replays it, and its journals go to tests/replay/journals,
where they are replayed from then on. Exit code 1 if any failed.
"""

import argparse
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.sim import kept
from tests.sim.cast import AS_SHIPPED, Cast
from tests.sim.oracle import Journal
from tests.sim.simulation import simulate

BATCH = 50  # seeds; a process is handed them together


@dataclass
class Played:
    """What a batch of seeds came to. `failed` has the traceback of each seed that did."""

    seeds: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)
    traces: list[str] = field(default_factory=list)
    cpu_s: float = 0.0

    def add(self, other: "Played") -> None:
        self.seeds += other.seeds
        self.seen += other.seen
        self.failed |= other.failed
        self.traces += other.traces
        self.cpu_s += other.cpu_s


def play(
    seeds: range,
    *,
    is_traced: bool = False,
    keeps_in: Path | None = None,
    cast: Cast = AS_SHIPPED,
) -> Played:
    """Play seeds one after another.

    Args:
        seeds: which.
        cast: who plays them.
        is_traced: whether to tell the stories.
        keeps_in: where the journals of a seed that fails go.
    """
    played, began = Played(len(seeds)), time.process_time()
    for seed in seeds:
        try:
            story = simulate(seed, cast)
        except Exception:  # noqa: BLE001 - whatever it was, the seed is what helps
            played.failed[seed] = traceback.format_exc()
            if keeps_in is not None:
                with suppress(Exception):  # it fails as before, and it is the journals we want
                    simulate(seed, cast, keep=partial(_keep, seed, keeps_in))
            continue
        played.seen += story.seen
        if is_traced:
            played.traces.append("\n".join([f"seed {seed} {story.digest}", *story.lines, ""]))
    played.cpu_s = time.process_time() - began
    return played


def play_all(
    seeds: range, *, jobs: int, is_traced: bool, keeps_in: Path | None
) -> Iterator[Played]:
    """Play seeds by batches, on `jobs` processes; yield what each batch came to, in order."""
    batches = [seeds[at : at + BATCH] for at in range(0, len(seeds), BATCH)]
    work = partial(play, is_traced=is_traced, keeps_in=keeps_in)
    if jobs == 1:
        yield from map(work, batches)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("forkserver")) as pool:
        yield from pool.map(work, batches)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--trace", action="store_true", help="print what happened in each")
    parser.add_argument("--keep", type=Path, default=kept.FOLDER, help="where journals go")
    options = parser.parse_args(arguments)
    say = sys.stdout.write
    began, total = time.perf_counter(), Played()
    seeds = range(options.start, options.start + options.seeds)
    for played in play_all(
        seeds, jobs=options.jobs, is_traced=options.trace, keeps_in=options.keep
    ):
        say("".join(f"{trace}\n" for trace in played.traces))
        for seed, story in played.failed.items():
            say(f"{story}seed {seed} failed; replay: {replay_line(seed)}\n")
        played.traces.clear()
        total.add(played)
    say(", ".join(f"{what}: {count:,}" for what, count in total.seen.most_common()) + "\n")
    spent_s = time.perf_counter() - began
    each_ms = 1_000 * total.cpu_s / max(1, total.seeds)
    say(
        f"{total.seeds:,} seeds, {len(total.failed)} failed, {spent_s:.1f} s; "
        f"{total.cpu_s:.1f} CPU s, {each_ms:.1f} ms a seed\n"
    )
    return 1 if total.failed else 0


def replay_line(seed: int) -> str:
    """What a person types to see a seed again."""
    return f"python -m tests.sim.run --seeds 1 --start {seed} --trace"


def _keep(seed: int, folder: Path, number: int, journal: Journal) -> None:
    kept.keep(f"seed-{seed}-{number}", journal, folder)


if __name__ == "__main__":
    sys.exit(main())
