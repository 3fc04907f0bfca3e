"""Reads a datastore in an object store: what is asked for is pulled into its directory here first.

What has ended does not change, so it is pulled once. What runs is asked for again after a second.
"""

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from engine.client.ranged import RangedArray, is_ranged
from engine.client.reader import Reader
from engine.config import Config
from engine.datastores import open_replica, replica_layout
from engine.portal import Portal
from engine.stores.artifacts import load_entry
from engine.stores.cas import blob_key
from engine.stores.journals import JournalReader
from engine.stores.logs import LogPage, LogQuery
from engine.stores.manifest import Entry
from engine.stores.metadata.base import RunRecord, TaskRecord
from engine.stores.metadata.local import LocalMetadata
from engine.stores.remote.replica import Replica

FRESH_S = 1.0


class RemoteReader(Reader):
    """A Reader of the directory that goes with an object store."""

    def __init__(self, config: Config) -> None:
        layout = replica_layout(config)
        metadata = Path(config.metadata) if config.metadata else layout.metadata

        def join() -> Replica:
            return open_replica(config, layout, LocalMetadata(metadata))

        def fetch(digest: str) -> None:
            self._has_fetched = True
            portal.call(lambda replica: replica.downloads.fetch(digest))

        self._portal = portal = Portal(join)
        self._has_fetched = False
        self._pulled: dict[tuple[str, ...], float] = {}
        self._datastore = config.datastore
        super().__init__(replace(layout, fetch=fetch), config)

    @property
    def root(self) -> str:
        """The datastore's URL."""
        return self._datastore

    def flows(self) -> Sequence[str]:
        self._pull_runs(None)
        return super().flows()

    def run(self, flow: str, run_id: str) -> RunRecord | None:
        self._pull_run(flow, run_id)
        return super().run(flow, run_id)

    def runs(
        self,
        flow: str | None = None,
        *,
        status: str | None = None,
        since_us: int | None = None,
        tags: Collection[str] = (),
    ) -> Iterator[RunRecord]:
        self._pull_runs(flow)
        return super().runs(flow, status=status, since_us=since_us, tags=tags)

    def unlisted(self, run_id: str | None = None, flow: str | None = None) -> RunRecord | None:
        """None: a run in an object store is listed before it begins."""
        return None

    def steps(self, flow: str, run_id: str) -> Sequence[str]:
        self._pull_run(flow, run_id)
        return super().steps(flow, run_id)

    def task(self, flow: str, run_id: str, step: str, task_id: str) -> TaskRecord | None:
        self._pull_run(flow, run_id)
        return super().task(flow, run_id, step, task_id)

    def tasks(
        self, flow: str, run_id: str, step: str | None = None, *, status: str | None = None
    ) -> Iterator[TaskRecord]:
        self._pull_run(flow, run_id)
        return super().tasks(flow, run_id, step, status=status)

    def change_tags(
        self, flow: str, run_id: str, *, add: Collection[str], remove: Collection[str]
    ) -> RunRecord:
        self._pull_run(flow, run_id)
        changed = super().change_tags(flow, run_id, add=add, remove=remove)
        self._portal.call(lambda replica: replica.pulling.put_tags(changed))
        return changed

    def status(self, record: RunRecord) -> str:
        """A run's status. Of one that was driven here the lease tells, of others the pull."""
        now = self.run(record.flow, record.run_id) or record
        if self._layout.lock(now.flow, now.run_id).exists():
            return super().status(now)
        return now.status

    def value(self, entry: Entry, *, allow_pickle: bool = True) -> Any:  # Any: users' values
        digest = entry.digest
        if digest is None or self._blobs.exists(digest):
            return super().value(entry, allow_pickle=allow_pickle)
        if not is_ranged(entry.serializer, entry.size_bytes, entry.codec, entry.meta):
            return super().value(entry, allow_pickle=allow_pickle)

        def fetch(start: int, length: int) -> bytes:
            key = blob_key(digest)
            return self._portal.call(lambda replica: replica.blobs.get_range(key, start, length))

        return RangedArray(entry.meta, fetch, lambda: load_entry(entry, self._blobs))

    def log_page(self, flow: str, run_id: str, query: LogQuery, position: int = 0) -> LogPage:
        self._pull_run(flow, run_id)
        return super().log_page(flow, run_id, query, position)

    def close(self) -> None:
        super().close()
        # Garbage is closed in any thread, and at the interpreter's end, when threads stand still.
        if self._has_fetched and not (self._portal.is_here or sys.is_finalizing()):
            self._has_fetched = False
            self._portal.call(lambda replica: replica.trim())
        self._portal.close()

    def _journal(self, flow: str, run_id: str) -> JournalReader:
        self._pull_run(flow, run_id)
        return super()._journal(flow, run_id)

    def _pull_runs(self, flow: str | None) -> None:
        if self._is_due("runs", flow or ""):
            self._portal.call(lambda replica: replica.pulling.runs(flow))
            self._pulled["runs", flow or ""] = time.monotonic()

    def _pull_run(self, flow: str, run_id: str) -> None:
        if self._is_due("run", flow, run_id):
            pulled = self._portal.call(lambda replica: replica.pulling.run(flow, run_id))
            self._pulled["run", flow, run_id] = (
                float("inf") if pulled.is_whole else time.monotonic()
            )

    def _is_due(self, *what: str) -> bool:
        return time.monotonic() - self._pulled.get(what, -FRESH_S) >= FRESH_S
