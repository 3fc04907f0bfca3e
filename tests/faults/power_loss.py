"""R-02: power fails after every call of a run with durability "power"; what was told is there.

python -m tests.faults.power_loss [--seeds N] [--resume-every N]    every prefix; prints counts

The calls of one run are recorded (vfs.py). For each prefix of them, directories are built that a
loss of power may leave (power.py): with no more than is sure, and some by chance. In each, whatever
an observer of the run had been told by then is committed and sound, fsck finds nothing damaged,
and, for some, the run is resumed and held against the oracle.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from engine.client.audit import Audit
from engine.errors import EngineError
from engine.stores.layout import open_layout
from tests.faults.crashes import ROOT, Digests, Site, Undisturbed
from tests.faults.disk_faults import site_of
from tests.faults.power import Disk
from tests.faults.vfs import Call, read_trace, traced

DRIVER = """
import asyncio, os
from engine.runtime import Engine, RunOptions
from engine.scheduler.progress import RunDone, TaskDone
from engine.worker.loader import load

flow = load("nested.py")
told = os.open("told", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

def hear(event):
    if isinstance(event, TaskDone):
        os.write(told, f"{event.task}\\n".encode())
    elif isinstance(event, RunDone):
        os.write(told, f"end {event.status}\\n".encode())

async def main():
    async with Engine() as engine:
        await engine.execute(flow, RunOptions(max_workers=2), observers=(hear,))

asyncio.run(main())
"""


@dataclass
class Recording:
    """The calls of one run, and what its observer had been told by when."""

    root: str
    calls: list[Call] = field(default_factory=list)
    told: list[tuple[int, str]] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, durability: str) -> "Recording":
        site = site_of(folder / "site")
        site.store.mkdir()
        variables, trace = traced(site.folder, folder)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("AFLOW_")}
        mine = {"AFLOW_DATASTORE": str(site.store), "AFLOW_DURABILITY": durability}
        subprocess.run(
            [sys.executable, "-P", "-c", DRIVER],
            cwd=site.folder,
            env={**kept, **variables, **mine, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
            timeout=60,
        )
        made = cls(str(site.store))
        for call in read_trace(trace):
            if call.path.startswith(f"{site.store}/") or call.path == str(site.store):
                made.calls.append(call)
            elif call.path.endswith("/told") and call.kind == "w":
                said = call.data.decode().split("\n")
                made.told += [(len(made.calls), line) for line in said if line]
        return made

    def told_by(self, count: int) -> set[str]:
        return {line for at, line in self.told if at <= count}


@dataclass
class Count:
    prefixes: int = 0
    directories: int = 0
    told: int = 0
    resumed: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.prefixes} prefixes, {self.directories} directories, {self.told} times a result "
            f"that had been told was looked for, {self.resumed} runs resumed, "
            f"{len(self.problems)} problems"
        )


def trial(
    folder: Path,
    recording: Recording,
    disk: Disk,
    count: int,
    chance: Random | None,
) -> tuple[Site, list[str]]:
    """Lose power after `count` calls, which the disk has seen; return what is left, and faults."""
    site = site_of(folder)
    disk.build(site.store, chance)
    return site, list(_lost(site, recording.told_by(count)))


def _lost(site: Site, told: set[str]) -> Iterator[str]:
    try:
        runs = site.runs()
        done = {str(c.task) for run in runs for c in run.commits}
        done |= {f"end {run.done.status}" for run in runs if run.done}
    except EngineError as error:
        yield f"the journal cannot be read: {error}"
        return
    if missing := told - done:
        yield f"was told and is lost: {sorted(missing)}"
    if not (site.store / "format").exists():
        return
    try:
        layout = open_layout(site.store)
        for damage in Audit(layout, layout.metadata, read_data=True).damages():
            yield f"{damage.path} {damage.used_by}: {damage.detail}"
    except EngineError as error:
        yield f"fsck: {error}"


def resumed(site: Site, expected: Digests) -> list[str]:
    code = site.call(site.next_words)
    if code:
        return [f"resumed, it ended with {code}: {site.said()}"]
    return site.verdict(expected).problems


def campaign(
    folder: Path,
    seeds: int,
    resume_every: int,
    *,
    every: int = 1,
    durability: str = "power",
) -> Count:
    """Lose power after every call, or after every n-th."""
    total = Count()
    expected = Undisturbed.run(site_of(folder / "undisturbed")).digests
    recording = Recording.make(folder, durability)
    disk = Disk(recording.root)
    for count in range(len(recording.calls) + 1):
        if count:
            disk.do([recording.calls[count - 1]])
        if count % every:
            continue
        total.prefixes += 1
        for seed in range(seeds + 1):
            chance = Random(f"{count} {seed}") if seed else None
            place = folder / "after"
            site, problems = trial(place, recording, disk, count, chance)
            total.directories += 1
            total.told += len(recording.told_by(count))
            if (total.directories - 1) % resume_every == 0:
                total.resumed += 1
                problems += resumed(site, expected)
            total.problems += [f"call {count}, seed {seed}: {p}" for p in problems]
            shutil.rmtree(place)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="directories by chance, a prefix")
    parser.add_argument("--resume-every", type=int, default=10, help="resume every n-th")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        total = campaign(Path(name), options.seeds, options.resume_every)
    print(*total.problems, f"{total}, {time.monotonic() - began:.0f} s", sep="\n")  # noqa: T201
    return int(bool(total.problems))


if __name__ == "__main__":
    sys.exit(main())
