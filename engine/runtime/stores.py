"""The stores of a configuration, found by its `datastore` and `metadata`."""

from pathlib import Path

from msgspec import Struct

from engine.config import Config
from engine.errors import ConfigError
from engine.scheduler.facts import fact_of
from engine.stores.directory import BlobDirectory
from engine.stores.layout import Layout, create_layout, open_layout
from engine.stores.metadata.base import MetadataStore
from engine.stores.metadata.local import LocalMetadata
from engine.stores.metadata.rebuild import known_runs


class Stores(Struct, frozen=True):
    """Where blobs, journals and metadata of a datastore are."""

    layout: Layout
    blobs: BlobDirectory
    metadata: MetadataStore

    async def aclose(self) -> None:
        await self.metadata.aclose()


def open_stores(config: Config, *, create: bool) -> Stores:
    """Open what `config` names; with `create`, make a local datastore that is not there yet.

    Raises:
        ConfigError: the datastore is of a kind that this version does not have.
        DatastoreError: the directory is something else, or of a later version.
        StoreAccessError: the file system refuses.
    """
    if "://" in config.datastore:
        scheme = config.datastore.partition("://")[0]
        raise ConfigError(
            f"datastore {config.datastore!r}: there is no {scheme} datastore in this version",
            hint="give a directory: --datastore DIR",
        )
    path = Path(config.datastore)
    layout = create_layout(path, durability=config.durability) if create else open_layout(path)
    metadata = Path(config.metadata) if config.metadata else layout.metadata
    blobs = layout.blob_directory(
        durability=config.durability,
        verify="always" if config.verify == "always" else "identity",
    )
    return Stores(
        layout,
        blobs,
        LocalMetadata(
            metadata,
            durability=config.durability,
            known=lambda: known_runs(layout, fact_of),
        ),
    )
