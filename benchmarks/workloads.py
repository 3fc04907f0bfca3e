"""The workloads, each a function of the lab that returns its rows of the report."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.lab import ROOT, Lab, Measured
from benchmarks.rows import Figure, Row

LISTING = Path(__file__).parent / "listing.py"
WORKERS = 64
FLOOR_MAX = 10_000  # tasks; a floor is flat
SPLITS = ("--max-num-splits", "1000000")  # Metaflow's own cap is 100


def start_up(lab: Lab) -> list[Row]:
    """`aflow --help` and a run of two steps that do nothing."""
    times = 3 if lab.is_quick else 15
    helps, hellos, floors = [], [], []
    for _ in range(times):
        floors.append(lab.command(sys.executable, "-c", "import asyncio").wall_s)
        helps.append(lab.command(ROOT / "bin" / "aflow", "--help").wall_s)
        hellos.append(lab.aflow("hello").wall_s)
    floor = Figure.of(floors, "python -c 'import asyncio'")
    peer = Figure.of([lab.metaflow("hello").wall_s for _ in range(2 if lab.is_quick else 5)])
    help_row = Row("aflow --help", "wall time", "s", Figure.of(helps), floor)
    hello_row = Row("hello, 2 steps", "wall time", "s", Figure.of(hellos), floor, peer)
    return [
        replace(help_row, targets=(help_row.at_most(0.1, "100 ms"),)),
        replace(hello_row, targets=(hello_row.at_most_floor(3),)),
    ]


def chain(lab: Lab) -> list[Row]:
    """100 steps, one after the other, each changing one small artifact."""
    steps, theirs = (20, 5) if lab.is_quick else (100, 20)
    start_s, their_start_s = lab.start_up_s
    runs = [lab.aflow("chain", source=chain_source(steps)) for _ in range(2 if lab.is_quick else 7)]
    peer = lab.metaflow("chain", source=chain_source(theirs))
    row = Row(
        f"chain of {steps} steps",
        "(wall time of the run - start-up) / steps",
        "ms",
        Figure.of([1e3 * (r.wall_s - start_s) / steps for r in runs]),
        peer=Figure.of([1e3 * (peer.wall_s - their_start_s) / theirs], f"{theirs} steps"),
    )
    return [replace(row, targets=(row.at_most(6, "6 ms a hop"),))]


def chain_source(steps: int) -> str:
    """A flow of `steps` steps in a row, as text."""
    names = ["start", *(f"hop_{i}" for i in range(2, steps)), "end"]
    lines = ["from engine import FlowSpec, step", "", "", "class Chain(FlowSpec):"]
    for name, following in zip(names, [*names[1:], None], strict=True):
        lines += ["    @step", f"    def {name}(self):"]
        lines.append("        self.hops = 1" if name == "start" else "        self.hops += 1")
        lines += [f"        self.next(self.{following})" if following else "        pass", ""]
    return "\n".join([*lines, "", 'if __name__ == "__main__":', "    Chain()", ""])


def fan(lab: Lab) -> list[Row]:
    """A foreach over trivial tasks, narrow to very wide, and the client's listing of one."""
    sizes = {100: 2, 400: 2} if lab.is_quick else {1_000: 7, 10_000: 3, 100_000: 1}
    theirs = 20 if lab.is_quick else 200
    start_s, their_start_s = lab.start_up_s
    wide = ("--max-workers", str(WORKERS))
    peer, peer_listing = lab.metaflow_then(LISTING, "fan", "--width", str(theirs), *wide, *SPLITS)
    assert peer_listing
    peer_figure = Figure.of([1e3 * (peer.wall_s - their_start_s) / theirs], f"{theirs:,} tasks")
    rows: list[Row] = []
    runs: dict[int, list[Measured]] = {}
    listings: list[Measured] = []
    floors: list[float] = []  # of all widths: a fork does not know how many there are
    floor_words = (str(WORKERS), lab.task_modules)
    for width, times in sizes.items():
        runs[width] = []
        for _ in range(times):
            if width <= FLOOR_MAX:
                floors.append(1e3 * lab.floor("fork", str(width), *floor_words) / width)
            is_listed = width == min(sizes)
            measured, listing = lab.aflow_then(
                LISTING if is_listed else None, "fan", "--width", str(width), *wide
            )
            runs[width].append(measured)
            listings += [listing] if listing else []
        row = Row(
            f"foreach over {width:,} tasks",
            "(wall time of the run - start-up) / tasks",
            "ms",
            Figure.of([1e3 * (r.wall_s - start_s) / width for r in runs[width]]),
            Figure.of(floors, f"fork and reap, same imports, {WORKERS} at a time"),
            peer_figure,
        )
        rows.append(replace(row, targets=_fan_targets(row)))
    rows += _growth(runs)
    rows.append(_listing(min(sizes), listings, theirs, peer_listing))
    return rows


def _fan_targets(row: Row) -> tuple[tuple[str, bool], ...]:
    assert row.peer
    ratio = row.peer.median / row.ours.median
    return row.at_most_floor(2.5), ("at least 100 x Metaflow's rate", ratio >= 100)


def _growth(runs: dict[int, list[Measured]]) -> list[Row]:
    """How the widest foreach compares with the narrowest: time per task, memory of the driver."""
    few, many = min(runs), max(runs)

    def per_task(width: int) -> float:
        return Figure.of([r.wall_s for r in runs[width]]).median / width

    def driver(width: int) -> float:
        return Figure.of([float(r.driver_bytes) for r in runs[width]]).median

    flat = Row(
        f"foreach, {many:,} over {few:,} tasks",
        "ratio of times per task",
        "x",
        Figure.of([per_task(many) / per_task(few)]),
    )
    memory = Row(
        f"foreach, {many:,} less {few:,} tasks",
        "peak memory of the driver / tasks",
        "bytes",
        Figure.of([max(0.0, driver(many) - driver(few)) / (many - few)]),
    )
    return [
        replace(flat, targets=(flat.at_most(1.2, "1.2 (flat within 20 %)"),)),
        replace(memory, targets=(memory.at_most(1024, "1 KB"),)),
    ]


def _listing(width: int, ours: list[Measured], theirs: int, peer: Measured) -> Row:
    row = Row(
        f"client lists {width:,} tasks, reads an int of each",
        "time after import",
        "ms",
        Figure.of([1e3 * m.values[0] for m in ours]),
        peer=Figure.of([1e3 * peer.values[0]], f"{theirs:,} tasks"),
        short=f"client reads {width:,} tasks",
    )
    return replace(row, targets=(row.at_most(50, "50 ms"),))


def big_array(lab: Lab) -> list[Row]:
    """One float64 array: how long until it is committed, how long to read it, at what memory."""
    mib = 64 if lab.is_quick else 1024
    runs, floors = [], []
    for _ in range(2 if lab.is_quick else 5):
        floors.append(_write_floor(lab, 1, mib))
        lab.floor("write", "1", str(mib))
        runs.append(lab.aflow("big_array", "--mib", str(mib)))
    peer = lab.metaflow("big_array", "--mib", str(mib))
    name = f"array of {mib:,} MiB"
    persist = Row(
        name,
        "end of the step to start of the next",
        "s",
        Figure.of([r.values[0] for r in runs]),
        Figure.of(floors, "BLAKE3 + write"),
        Figure.of([peer.values[0]]),
        short=f"{name}: store",
    )
    load = Row(
        name,
        "load in the next step",
        "ms",
        Figure.of([1e3 * r.values[1] for r in runs]),
        peer=Figure.of([1e3 * peer.values[1]]),
        short=f"{name}: load",
    )
    peak = Row(
        name,
        "largest process / array",
        "x",
        Figure.of([r.peak_bytes / (mib * 2**20) for r in runs]),
        peer=Figure.of([peer.peak_bytes / (mib * 2**20)]),
    )
    return [
        replace(persist, targets=(persist.at_most_floor(1.5),)),
        replace(load, targets=(load.at_most(10, "10 ms"),)),
        replace(peak, targets=(peak.at_most(1.1, "1.1 x the array"),)),
    ]


def _write_floor(lab: Lab, count: int, mib: int) -> float:
    """The floor of writing arrays, like each run of a flow right after the same bytes were written.

    Memory that a virtual machine touches for the first time in a while comes from its host, at ten
    times the cost; whoever came first would pay for both.
    """
    lab.floor("write", str(count), str(mib))
    return lab.floor("write", str(count), str(mib))


def many_arrays(lab: Lab) -> list[Row]:
    """Many arrays of 1 MiB as artifacts of one step."""
    count = 50 if lab.is_quick else 1_000
    runs, floors = [], []
    for _ in range(2 if lab.is_quick else 5):
        floors.append(_write_floor(lab, count, 1))
        lab.floor("write", str(count), "1")
        runs.append(lab.aflow("many_arrays", "--count", str(count)))
    peer = lab.metaflow("many_arrays", "--count", str(count))
    name = f"{count:,} arrays of 1 MiB"
    return [
        Row(
            name,
            "end of the step to start of the next",
            "s",
            Figure.of([r.values[0] for r in runs]),
            Figure.of(floors, "BLAKE3 + write"),
            Figure.of([peer.values[0]]),
            short=f"{name}: store",
        ),
        Row(
            name,
            "load in the next step",
            "ms",
            Figure.of([1e3 * r.values[1] for r in runs]),
            peer=Figure.of([1e3 * peer.values[1]]),
            short=f"{name}: load",
        ),
    ]


def carried(lab: Lab) -> list[Row]:
    """100 MiB carried untouched through ten steps, its blob taken out of the store meanwhile.

    A step that read or hashed it would fail, and the run with it: there is no row then.
    """
    mib = 10 if lab.is_quick else 100
    stored, is_intact = lab.aflow("hide_and_seek", "--mib", str(mib)).values
    return [
        Row(
            f"{mib} MiB carried through 10 steps",
            "blobs stored",
            "",
            Figure.of([stored]),
            targets=(("1", stored == 1), ("0 bytes read or hashed on the way", is_intact == 1)),
        )
    ]


def sleepers(lab: Lab) -> list[Row]:
    """Tasks that only wait: how close the slots come to being full."""
    width, seconds, theirs = (128, 0.2, 64) if lab.is_quick else (1_000, 1.0, 128)
    ideal_s = math.ceil(width / 64) * seconds
    start_s, their_start_s = lab.start_up_s
    words = ("--max-workers", str(WORKERS), "--seconds", str(seconds))
    runs = [lab.aflow("sleepers", "--width", str(width), *words) for _ in range(3)]
    peer = lab.metaflow("sleepers", "--width", str(theirs), *words, *SPLITS)
    row = Row(
        f"{width:,} sleeps of {seconds:g} s, 64 workers",
        f"(wall time - start-up) / ideal ({ideal_s:g} s)",
        "x",
        Figure.of([(r.wall_s - start_s) / ideal_s for r in runs]),
        peer=Figure.of(
            [(peer.wall_s - their_start_s) / (math.ceil(theirs / WORKERS) * seconds)],
            f"{theirs} sleeps",
        ),
    )
    return [replace(row, targets=(row.at_most(1.03, "1.03"),))]


WORKLOADS: dict[str, Callable[[Lab], list[Row]]] = {
    "start-up": start_up,
    "chain": chain,
    "fan": fan,
    "big-array": big_array,
    "many-arrays": many_arrays,
    "carried": carried,
    "sleepers": sleepers,
}
