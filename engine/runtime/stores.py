"""The stores of a configuration, found by its `datastore` and `metadata`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from engine.config import Config
from engine.scheduler.facts import fact_of
from engine.stores.directory import BlobDirectory
from engine.stores.journals import run_holder
from engine.stores.layout import Layout, create_layout, open_layout
from engine.stores.leases import Holder
from engine.stores.metadata.base import MetadataStore
from engine.stores.metadata.local import LocalMetadata
from engine.stores.metadata.rebuild import known_runs
from engine.stores.threads import in_thread

if TYPE_CHECKING:
    from engine.stores.remote.replica import Replica


class Stores(Struct, frozen=True):
    """Where blobs, journals and metadata of a datastore are.

    With `replica` the datastore is in an object store, and the others are its directory here.
    """

    layout: Layout
    blobs: BlobDirectory
    metadata: MetadataStore
    replica: "Replica | None" = None
    on_close: Callable[[], None] | None = None

    async def pull_runs(self, flow: str) -> None:
        """Make sure that the runs of other machines are listed."""
        if self.replica is not None:
            await self.replica.pulling.runs(flow)

    async def settle(self, flow: str, run_id: str) -> bool:
        """Make sure that all of a run that nobody drives is here, and where the datastore is.

        Returns:
            Whether all that its journal names is sure to be there.

        Raises:
            NotFoundError: there is no such run.
            StoreError: the object store does not answer.
        """
        return self.replica is None or await self.replica.settle(flow, run_id)

    async def driver(self, flow: str, run_id: str) -> Holder | None:
        """Who drives a run that was settled; None if it has ended, or if he is gone."""
        record = await self.metadata.run(flow, run_id)
        if record is not None and record.status != "running":
            return None
        here = run_holder(str(self.layout.lock(flow, run_id)))
        if here is not None or record is None or self.replica is None:
            return here
        return self.replica.driver(record)

    async def aclose(self) -> None:
        await self.metadata.aclose()
        if self.replica is not None:
            await self.replica.aclose()
        if self.on_close is not None:
            await in_thread(self.on_close)


def open_stores(config: Config, *, create: bool) -> Stores:
    """Open what `config` names; with `create`, make a local datastore that is not there yet.

    Raises:
        ConfigError: the datastore is of a kind that this version does not have.
        DatastoreError: the directory is something else, or of a later version.
        StoreAccessError: the file system refuses.
    """
    if "://" in config.datastore:
        return _open_remote(config)
    path = Path(config.datastore)
    layout = create_layout(path, durability=config.durability) if create else open_layout(path)
    return Stores(layout, _blobs(config, layout), _metadata(config, layout))


def _open_remote(config: Config) -> Stores:
    from engine.datastores import (  # noqa: PLC0415  # most runs are local
        Fetcher,
        open_replica,
        replica_layout,
    )

    layout = replica_layout(config)
    fetcher = Fetcher(config, layout)
    layout = replace(layout, fetch=fetcher)
    metadata = _metadata(config, layout)
    replica = open_replica(config, layout, metadata)
    return Stores(layout, _blobs(config, layout), metadata, replica, fetcher.close)


def _metadata(config: Config, layout: Layout) -> LocalMetadata:
    return LocalMetadata(
        Path(config.metadata) if config.metadata else layout.metadata,
        durability=config.durability,
        known=lambda: known_runs(layout, fact_of),
    )


def _blobs(config: Config, layout: Layout) -> BlobDirectory:
    verify = "always" if config.verify == "always" else "identity"
    return layout.blob_directory(durability=config.durability, verify=verify)
