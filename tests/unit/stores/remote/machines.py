"""Machines that share an object store, each with a directory of its own."""

import time
from collections.abc import Callable
from pathlib import Path

from engine.runtime.stores import Stores
from engine.scheduler.facts import fact_of, named_in
from engine.stores.base import BlobStore
from engine.stores.layout import create_layout
from engine.stores.metadata.local import LocalMetadata
from engine.stores.remote.replica import Replica, Terms


def now_us() -> int:
    return time.time_ns() // 1000


def machine(folder: Path, blobs: BlobStore, clock: Callable[[], int] = now_us) -> Stores:
    """The stores of a machine whose directory is `folder`, and whose wall clock is `clock`."""
    layout = create_layout(folder)
    metadata = LocalMetadata(layout.metadata)
    terms = Terms(fact_of, named_in, clock)
    replica = Replica(blobs, layout, metadata, terms)
    return Stores(layout, layout.blob_directory(), metadata, replica)
