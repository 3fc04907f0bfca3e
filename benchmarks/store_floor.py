"""What the local stores cost beside the work that no store can avoid. Medians of REPEATS.

    .venv/bin/python -m benchmarks.store_floor [folder]

The floor of persisting an array is hashing and writing the same bytes, one after the other, taken
in turn with ours in the same process: the first touch of fresh page cache costs this class of
machine ten times what the write does. Bars: 1 GiB within 1.5 times the floor and 1.1 times its
memory, loaded in 10 ms; an append to the journal 5 us; a row of metadata 10 us.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from blake3 import blake3

from engine.stores.artifacts import load_entry, load_item, pack_items, save_values
from engine.stores.directory import BlobDirectory
from engine.stores.journals import JournalReader, JournalWriter
from engine.stores.layout import Layout, create_layout
from engine.stores.leases import Lease
from engine.stores.logs import LogBatch, LogWriter
from engine.stores.metadata.base import TaskRecord
from engine.stores.metadata.local import LocalMetadataSync

REPEATS = 5
GIB = 1 << 30
MIB = 1 << 20


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def say(what: str, figure: float, unit: str, note: str = "") -> None:
    print(f"{what:<52} {figure:>10.3f} {unit:<3} {note}")


@contextmanager
def datastore(folder: Path) -> Iterator[Layout]:
    root = folder / "store"
    try:
        yield create_layout(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def hash_and_write(view: memoryview, path: Path) -> None:
    blake3(view).hexdigest()
    with path.open("wb", buffering=0) as file:
        while view:
            view = view[file.write(view) :]


def one_large_array(folder: Path) -> None:
    array = np.random.default_rng(0).random(GIB // 8)
    view = array.data.cast("B")
    path = folder / "floor"
    hash_and_write(view, path)  # page cache that this machine has never used is slow
    path.unlink()
    rows = []
    for n in range(REPEATS):
        array[0] = n  # so that nothing is there already
        floor = seconds(lambda: hash_and_write(view, path))
        path.unlink()
        with datastore(folder) as layout:
            rows.append((floor, *_save_and_load(array, layout)))
    floor, ours, again, mapped, touched = (
        statistics.median(row) for row in zip(*rows, strict=True)
    )
    say("1 GiB float64: floor (blake3, then write)", floor * 1000, "ms")
    say("1 GiB float64: persist", ours * 1000, "ms", f"{ours / floor:.2f} x the floor")
    say("1 GiB float64: persist what is there already", again * 1000, "ms")
    say("1 GiB float64: load (mapped)", mapped * 1000, "ms")
    say("1 GiB float64: then sum all of it", touched * 1000, "ms")


def _save_and_load(array: np.ndarray, layout: Layout) -> tuple[float, float, float, float]:
    """Seconds to save, to save again, to load and to read all; each as a fresh process would."""
    began = time.perf_counter()
    entry = save_values({"x": array}, layout.blob_directory(), step="s")["x"]
    saved = time.perf_counter()
    save_values({"x": array}, layout.blob_directory(), step="s")
    again = time.perf_counter()
    loaded: np.ndarray = load_entry(entry, layout.blob_directory())  # type: ignore[assignment]  # an array was saved
    mapped = time.perf_counter()
    loaded.sum()
    return saved - began, again - saved, mapped - again, time.perf_counter() - mapped


def peak_memory(folder: Path) -> None:
    """In a process of its own, so that nothing else counts."""
    command = [sys.executable, "-m", "benchmarks.store_floor", "--peak", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    say("1 GiB float64: peak memory while persisting", float(done.stdout), "x", "of the object")


def measure_peak(folder: Path) -> None:
    with datastore(folder) as layout:
        directory = layout.blob_directory()
        save_values({"x": np.arange(10_000.0)}, directory, step="s")
        array = np.ones(GIB // 8)
        for _ in range(2):  # once written, once found
            save_values({"x": array}, directory, step="s")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / array.nbytes)


def many_arrays(folder: Path) -> None:
    count = 1000
    arrays = {f"a{n}": np.random.default_rng(n).random(MIB // 8) for n in range(count)}
    views = [array.data.cast("B") for array in arrays.values()]
    floor, ours, loads = [], [], []

    def plain() -> None:
        for n, view in enumerate(views):
            hash_and_write(view, folder / "floor" / str(n))

    for n in range(REPEATS):
        for array in arrays.values():
            array[0] = n
        (folder / "floor").mkdir()
        floor.append(seconds(plain))
        shutil.rmtree(folder / "floor")
        with datastore(folder) as layout:
            directory = layout.blob_directory()
            began = time.perf_counter()
            entries = save_values(arrays, directory, step="s")
            ours.append(time.perf_counter() - began)
            reader: BlobDirectory = layout.blob_directory()
            kept: list[object] = []
            began = time.perf_counter()
            kept.extend(load_entry(entry, reader) for entry in entries.values())
            loads.append(time.perf_counter() - began)
            del kept
    base, took = statistics.median(floor), statistics.median(ours)
    say("1,000 x 1 MiB: floor", base * 1000, "ms")
    say("1,000 x 1 MiB: persist", took * 1000, "ms", f"{took / base:.2f} x the floor")
    say("1,000 x 1 MiB: load all and hold them", statistics.median(loads) * 1000, "ms")


def small_values(folder: Path) -> None:
    values = {f"v{n}": n * 1.5 for n in range(10)}
    with datastore(folder) as layout:
        directory = layout.blob_directory()
        entries = save_values(values, directory, step="s")
        save = [seconds(lambda: save_values(values, directory, step="s")) for _ in range(2000)]
        entry = entries["v0"]
        load = [seconds(lambda: load_entry(entry, directory)) for _ in range(2000)]
        say("10 small values of a task: save", statistics.median(save) * 1e6, "us")
        say("a small value: load", statistics.median(load) * 1e6, "us")
        items = [seconds(lambda: pack_items(range(100_000), directory, step="s")) for _ in range(3)]
        say("foreach of 100,000 ints: pack", statistics.median(items) * 1000, "ms")
        packed = pack_items(range(100_000), directory, step="s")
        one = [seconds(lambda: load_item(packed, 777, layout.blob_directory())) for _ in range(500)]
        say("foreach of 100,000 ints: one child's item", statistics.median(one) * 1e6, "us")
        blobs = [os.urandom(10_000) for _ in range(1000)]
        small = [seconds(lambda blob=blob: directory.write([blob])) for blob in blobs]  # type: ignore[misc]  # a default that binds
        say("a blob of 10 kB: write", statistics.median(small) * 1e6, "us")


def journal_and_log(folder: Path) -> None:
    with datastore(folder) as layout:
        layout.create_run("F", "R")
        path, payload = str(layout.journal("F", "R")), os.urandom(400)
        with (
            Lease.acquire(str(layout.lock("F", "R")), run="F/R", since_us=0) as lease,
            JournalWriter(path, lease) as writer,
        ):
            each = [seconds(lambda: writer.append(payload)) for _ in range(50_000)]
            say("journal: append 400 bytes", statistics.median(each) * 1e6, "us")
        with JournalReader(path) as reader:
            scan = [seconds(lambda: sum(1 for _ in reader.scan())) for _ in range(REPEATS)]
            say("journal: scan, a frame", statistics.median(scan) / 50_000 * 1e6, "us")
            each = [seconds(lambda: reader.read(4)) for _ in range(20_000)]
            say("journal: read one frame", statistics.median(each) * 1e6, "us")
        log = LogWriter(str(layout.log("F", "R")))
        batch = LogBatch("work", "0", 0, "stdout", [(n, "a line of output") for n in range(10)])
        each = [seconds(lambda: log.append([batch])) for _ in range(20_000)]
        log.close()
        say("log: append 10 lines", statistics.median(each) * 1e6, "us")


def metadata_rows(folder: Path) -> None:
    count, batch = 20_000, 500
    writes, reads = [], []
    for _ in range(REPEATS):
        with datastore(folder) as layout, LocalMetadataSync(layout.metadata) as metadata:
            metadata.flows()
            tasks = [
                TaskRecord("F", "R", "work", str(n), n, 0, "succeeded", 1, 2, n)
                for n in range(count)
            ]
            began = time.perf_counter()
            for start in range(0, count, batch):
                metadata.put_tasks(tasks[start : start + batch])
            writes.append(time.perf_counter() - began)
            reads.append(seconds(lambda: sum(1 for _ in metadata.tasks("F", "R"))))  # called here
    say("metadata: write a row, 500 a batch", statistics.median(writes) / count * 1e6, "us")
    say("metadata: read a row", statistics.median(reads) / count * 1e6, "us")


def main() -> None:
    if sys.argv[1:2] == ["--peak"]:
        measure_peak(Path(sys.argv[2]))
        return
    parent = sys.argv[1] if len(sys.argv) > 1 else "."
    with tempfile.TemporaryDirectory(dir=parent, prefix=".bench-") as name:
        for part in (
            small_values,
            journal_and_log,
            metadata_rows,
            many_arrays,
            peak_memory,
            one_large_array,
        ):
            part(Path(name))


if __name__ == "__main__":
    main()
