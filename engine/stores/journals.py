"""A run's journal: its events in order, written by the one process that holds the run's lease.

What a payload means is engine.scheduler.journal's matter. Appending a task's result is its local
commit, so the writer refuses to write once its lease is gone.
"""

from pathlib import Path

from engine import crashpoints
from engine.errors import StoreError
from engine.stores.frames import MAGIC_BYTES, FrameReader, FrameWriter
from engine.stores.leases import Holder, Lease, holder_of

JOURNAL_MAGIC = b"AFJ1"


class JournalWriter(FrameWriter):
    """Appends to the journal under a lease.

    Raises:
        StoreError: the lease has been released.
    """

    def __init__(self, path: str, lease: Lease, *, durability: str = "process") -> None:
        self._lease = lease
        super().__init__(path, JOURNAL_MAGIC, durability=durability, points=crashpoints.JOURNAL)

    def _write(self, data: bytes) -> None:
        if not self._lease.is_held:
            raise StoreError(f"the lease of {self.path} is gone, so nothing may be written")
        super()._write(data)


class JournalReader(FrameReader):
    """Reads a journal, also of a run that is alive. See FrameReader."""

    def __init__(self, path: str, *, is_tolerant: bool = False) -> None:
        super().__init__(path, JOURNAL_MAGIC, is_tolerant=is_tolerant)


def never_began(folder: Path) -> bool:
    """Whether a run's driver died before its first frame, so that its directory holds nothing.

    A journal is made before the log, and the log's first line comes after the journal's first
    frame: a journal that lacks frames beside a log with lines has lost them.

    Raises:
        StoreError: the journal is damaged.
    """
    log, journal = folder / "log", folder / "journal"
    if log.exists() and (log.stat().st_size > MAGIC_BYTES or not journal.exists()):
        return False
    if not journal.exists():
        return True
    with JournalReader(str(journal)) as reader:
        return next(reader.scan(), None) is None


def run_holder(lock_path: str) -> Holder | None:
    """Who drives the run now, None when nobody does."""
    return holder_of(lock_path)
