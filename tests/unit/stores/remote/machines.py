"""Machines that share an object store, each with a directory of its own."""

import time
from collections.abc import Callable
from pathlib import Path

from engine.runtime.stores import Stores
from engine.scheduler.facts import fact_of, named_in
from engine.stores.base import BlobStore
from engine.stores.layout import create_layout
from engine.stores.metadata.local import LocalMetadata
from engine.stores.remote.replica import Meaning, Replica


def now_us() -> int:
    return time.time_ns() // 1000


def machine(folder: Path, blobs: BlobStore, clock: Callable[[], int] = now_us) -> Stores:
    """The stores of a machine whose directory is `folder`, and whose wall clock is `clock`."""
    layout = create_layout(folder)
    metadata = LocalMetadata(layout.metadata)
    replica = Replica(blobs, layout, metadata, meaning=Meaning(fact_of, named_in), now_us=clock)
    return Stores(layout, layout.blob_directory(), metadata, replica)
