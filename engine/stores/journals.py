"""A run's journal: its events in order, written by the one process that holds the run's lease.

What a payload means is engine.scheduler.journal's matter. Appending a task's result is its local
commit, so the writer refuses to write once its lease is gone.
"""

from engine.errors import StoreError
from engine.stores.frames import FrameReader, FrameWriter
from engine.stores.leases import Holder, Lease, holder_of

JOURNAL_MAGIC = b"AFJ1"


class JournalWriter(FrameWriter):
    """Appends to the journal under a lease.

    Raises:
        StoreError: the lease has been released.
    """

    def __init__(self, path: str, lease: Lease, *, durability: str = "process") -> None:
        self._lease = lease
        super().__init__(path, JOURNAL_MAGIC, durability=durability)

    def _write(self, data: bytes) -> None:
        if not self._lease.is_held:
            raise StoreError(f"the lease of {self.path} is gone, so nothing may be written")
        super()._write(data)


class JournalReader(FrameReader):
    """Reads a journal, also of a run that is alive. See FrameReader."""

    def __init__(self, path: str) -> None:
        super().__init__(path, JOURNAL_MAGIC)


def run_holder(lock_path: str) -> Holder | None:
    """Who drives the run now, None when nobody does."""
    return holder_of(lock_path)
