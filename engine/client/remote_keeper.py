"""Housekeeping of an object store; see keeper.py."""

from msgspec.structs import replace

from engine.client.audit import Audit
from engine.client.keeper import metadata_path, unlist
from engine.config import Config
from engine.datastores import open_replica, replica_layout
from engine.portal import Portal
from engine.scheduler.journal import manifests_in
from engine.stores.fsck import BlobCheck, Damage
from engine.stores.gc import Collected, Request, RunName
from engine.stores.metadata.local import LocalMetadata
from engine.stores.remote.checking import (
    ListedDirectory,
    blob_sizes,
    pull_all,
    read_blob,
    record_damages,
    waiting_blobs,
)
from engine.stores.remote.collection import alive_runs, collect
from engine.stores.remote.replica import Replica


class RemoteKeeper:
    """Asks the object store, and looks into what was pulled from it."""

    def __init__(self, config: Config) -> None:
        layout = replica_layout(config)
        self.metadata = metadata = metadata_path(config, layout)
        self.place = config.datastore

        def join() -> Replica:
            return open_replica(config, layout, LocalMetadata(metadata))

        def fetch(digest: str) -> None:
            portal.call(lambda replica: replica.downloads.fetch(digest))

        self._portal = portal = Portal(join)
        self._fetch = fetch
        self.layout = replace(layout, fetch=fetch)

    def close(self) -> None:
        self._portal.close()

    def refresh(self) -> None:
        self._portal.call(pull_all)

    def alive(self) -> set[RunName]:
        return self._portal.call(alive_runs)

    def blob_sizes(self) -> dict[bytes, int]:
        return {bytes.fromhex(k): v for k, v in self._portal.call(blob_sizes).items()}

    def collect(self, request: Request) -> Collected:
        done = self._portal.call(lambda replica: collect(replica, request))
        if not request.is_dry_run:
            unlist(self.metadata, request)
        return done

    def damages(self, *, read_data: bool) -> tuple[int, list[Damage]]:
        waiting = self._portal.call(lambda replica: waiting_blobs(replica, manifests_in))
        sizes = self._portal.call(blob_sizes)
        found = self._portal.call(lambda replica: record_damages(replica, read_data=read_data))

        def read(digest: str) -> None:
            self._portal.call(lambda replica: read_blob(replica, digest))

        directory = ListedDirectory(str(self.layout.blobs), sizes, waiting, self._fetch, read)
        check = BlobCheck(directory, read_data=read_data)
        audit = Audit(self.layout, self.metadata, blobs=check, is_copy=True)
        found += audit.damages()
        return audit.runs, found
