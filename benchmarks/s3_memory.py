"""Memory of a run whose array goes to S3, and of a program that reads it back.

    .venv/bin/python -m benchmarks.s3_memory [--mib N]

Counted is what a process has for itself and nothing can take back: anonymous private memory and its
swap, of /proc/PID/smaps_rollup, sampled every 10 ms, the peak of each process. Pages of a mapped
file can be dropped by the kernel at any time; they are told beside it (`Rss`). What an array of
1 MiB needs is taken off, but for the process of the task, which makes the array: it is to need at
most 1.1 times the array and 64 MiB, and so is that together with the driver, which uploads it. A
program that reads the array is to need 64 MiB.
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from engine.testing.servers import shared_server
from tests.servers import BUCKET, make_bucket

MIB = 1 << 20
SLACK_MIB = 64
FACTOR = 1.1
TARGET_MIB = 2048
MAKER, DRIVER = "the task that makes it", "the driver that uploads it"
_EVERY_S = 0.01
_FIELD = re.compile(r"^(Rss|Anonymous|Private_Dirty|Swap):\s+(\d+) kB", re.MULTILINE)

FLOW = """
import numpy as np
from engine import FlowSpec, Parameter, step


class Big(FlowSpec):
    mib = Parameter("mib", default=1)

    @step
    def start(self):
        rng = np.random.default_rng(7)
        self.array = np.empty(self.mib << 20, dtype=np.uint8)
        for at in range(self.mib):
            self.array[at << 20 : (at + 1) << 20] = rng.integers(0, 256, 1 << 20, dtype=np.uint8)
        self.next(self.end)

    @step
    def end(self):
        pass
"""
READ = """
from engine import Flow

array = Flow("Big").latest_run["start"].task.data.array
total = sum(int(array[at : at + (1 << 20)].sum()) for at in range(0, array.nbytes, 1 << 20))
assert total
"""
READ_WHOLE = """
import numpy as np
from engine import Flow

array = np.asarray(Flow("Big").latest_run["start"].task.data.array)
assert int(array[:: 4096].sum())
"""


@dataclass
class Peaks:
    """The peaks of a process and of those that it has started, in MiB: own memory, and Rss."""

    root: tuple[float, float] = (0.0, 0.0)
    children: tuple[float, float] = (0.0, 0.0)
    samples: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def watch(self, pid: int) -> None:
        while not self._stop.wait(_EVERY_S):
            self.root = _larger(self.root, _memory(pid))
            for child in _descendants(pid):
                self.children = _larger(self.children, _memory(child))
            self.samples += 1

    def stop(self) -> None:
        self._stop.set()


def _larger(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return max(a[0], b[0]), max(a[1], b[1])


def _memory(pid: int) -> tuple[float, float]:
    try:
        found = dict(_FIELD.findall(Path(f"/proc/{pid}/smaps_rollup").read_text()))
    except (OSError, ValueError):  # it has ended
        return 0.0, 0.0
    own_kib = min(int(found.get("Anonymous", 0)), int(found.get("Private_Dirty", 0)))
    return (own_kib + int(found.get("Swap", 0))) / 1024, int(found.get("Rss", 0)) / 1024


def _descendants(pid: int) -> list[int]:
    found, todo = [], [pid]
    while todo:
        parent = todo.pop()
        try:
            tasks = list(Path(f"/proc/{parent}/task").glob("*/children"))
            children = [int(word) for task in tasks for word in task.read_text().split()]
        except OSError:
            continue
        found += children
        todo += children
    return found


def measured(command: list[str], folder: Path, variables: dict[str, str]) -> Peaks:
    """Run a command to its end and watch its memory."""
    peaks = Peaks()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **variables, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    watcher = threading.Thread(target=peaks.watch, args=(process.pid,))
    watcher.start()
    _, err = process.communicate()
    peaks.stop()
    watcher.join()
    if process.returncode:
        raise SystemExit(err)
    return peaks


def _measure(mib: int, folder: Path, variables: dict[str, str]) -> dict[str, tuple[float, float]]:
    (folder / "big.py").write_text(FLOW)
    here = {**variables, "AFLOW_DATASTORE": f"s3://{BUCKET}/{mib}"}
    aflow = [sys.executable, "-P", "-c", "from engine.cli.main import main; main()"]
    caches = {name: {"XDG_CACHE_HOME": str(folder / f"{name}-{mib}")} for name in ("a", "b", "c")}
    run = measured([*aflow, "run", "big.py", "--mib", str(mib)], folder, here | caches["a"])
    ranges = measured([sys.executable, "-c", READ], folder, here | caches["b"])
    whole = measured([sys.executable, "-c", READ_WHOLE], folder, here | caches["c"])
    return {
        MAKER: run.children,
        DRIVER: run.root,
        "a reader, by ranges": ranges.root,
        "a reader, as a mapped file": whole.root,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=TARGET_MIB)
    options = parser.parse_args()
    too_much = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "server").mkdir()
        with shared_server("seaweedfs", folder / "server") as server:
            asyncio.run(make_bucket(server))
            began = time.perf_counter()
            small = _measure(1, folder, server.variables)
            large = _measure(options.mib, folder, server.variables)
            took_s = time.perf_counter() - began
    sys.stdout.write(f"an array of {options.mib} MiB, in S3 and back; {took_s:.0f} s\n")
    for who, (own, rss) in large.items():
        is_maker = who == MAKER
        more = own if is_maker else own - small[who][0]
        counted = more + large[MAKER][0] if who == DRIVER else more
        most = FACTOR * options.mib + SLACK_MIB if who in (MAKER, DRIVER) else SLACK_MIB
        too_much += counted > most
        note = " with its maker" * (who == DRIVER) + " TOO MUCH" * (counted > most)
        sys.stdout.write(
            f"{who:28} own {own:6.0f} MiB, {more:6.0f} of it for the array, at most {most:.0f}"
            f"{note}; Rss {rss:.0f}\n"
        )
    return int(bool(too_much))


if __name__ == "__main__":
    sys.exit(main())
