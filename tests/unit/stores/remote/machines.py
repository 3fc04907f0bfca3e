"""Machines that share an object store, each with a directory of its own."""

import time
from pathlib import Path

from engine.runtime.stores import Stores
from engine.scheduler.facts import fact_of, named_in
from engine.stores.base import BlobStore
from engine.stores.layout import create_layout
from engine.stores.metadata.local import LocalMetadata
from engine.stores.remote.replica import Replica


def now_us() -> int:
    return time.time_ns() // 1000


def machine(folder: Path, blobs: BlobStore) -> Stores:
    """The stores of a machine whose directory is `folder`."""
    layout = create_layout(folder)
    metadata = LocalMetadata(layout.metadata)
    replica = Replica(
        blobs,
        layout,
        metadata,
        decode=fact_of,
        named=named_in,
        now_us=now_us,
        cache_max_bytes=1 << 30,
    )
    return Stores(layout, layout.blob_directory(), metadata, replica)
