"""A run as collections see it: a lease, a journal whose payloads are manifests, blobs."""

from collections.abc import Mapping
from pathlib import Path

from engine.stores.artifacts import pack_items, save_values
from engine.stores.gc import Collected, Request, RunName, collect
from engine.stores.journals import JournalWriter
from engine.stores.layout import Layout
from engine.stores.leases import Lease
from engine.stores.manifest import Entry, Manifest
from tests.unit.stores.conftest import blob_files

HOUR_US = 3_600_000_000


def payload_is_manifest(payload: bytes) -> list[bytes]:
    return [payload]


def big(seed: int) -> bytes:
    """A value that is a blob of its own; equal for equal seeds."""
    return bytes([seed % 256]) * 3000


class WrittenRun:
    """A run that begins when it is made, and is alive until it ends."""

    def __init__(self, layout: Layout, run_id: str, *, flow: str = "F") -> None:
        self.name = RunName(flow, run_id)
        self._layout = layout
        self._directory = layout.blob_directory()
        layout.create_run(flow, run_id)
        lock = str(layout.lock(flow, run_id))
        self._lease = Lease.acquire(lock, run=str(self.name), since_us=0)
        self._journal = JournalWriter(str(layout.journal(flow, run_id)), self._lease)

    def write(self, values: Mapping[str, object]) -> dict[str, Entry]:
        """Put the blobs of values, as a task does before its commit."""
        return save_values(values, self._directory, step="s")

    def write_items(self, items: list[object]) -> Entry:
        return pack_items(items, self._directory, step="s")

    def commit(self, entries: Mapping[str, Entry], items: Entry | None = None) -> None:
        made = Manifest(self.name.flow, self.name.run_id, "s", "0", 0, dict(entries), items=items)
        self._journal.append(made.pack())

    def end(self) -> RunName:
        self._journal.close()
        self._lease.release()
        return self.name

    @property
    def journal(self) -> Path:
        return self._layout.journal(self.name.flow, self.name.run_id)


def ended(layout: Layout, run_id: str, *, flow: str = "F", **values: object) -> RunName:
    """A run that committed values and ended."""
    run = WrittenRun(layout, run_id, flow=flow)
    run.commit(run.write(values))
    return run.end()


def stored(layout: Layout) -> set[str]:
    """The digests of the blobs that are there."""
    return {path.name for path in blob_files(layout) if path.parent.name != "tmp"}


def digests(entries: Mapping[str, Entry]) -> set[str]:
    return {entry.digest for entry in entries.values() if entry.digest}


def request(*runs: RunName, grace_us: int = 0, is_dry_run: bool = False) -> Request:
    """A request at an instant when every file is older than an hour."""
    now_us = 2**52
    return Request(payload_is_manifest, now_us, grace_us, runs, is_dry_run)


def collected(layout: Layout, *runs: RunName) -> Collected:
    return collect(layout, request(*runs))
