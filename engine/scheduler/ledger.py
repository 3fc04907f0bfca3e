"""How facts leave the driver: into the journal, and then to those who watch."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec.structs import replace

from engine.scheduler.events import ResultRef
from engine.scheduler.journal import JournalWriter, Record, RunDoneRecord, Seal, encode
from engine.scheduler.progress import Observer, RunDone, RunEvent

Clock = Callable[[], int]
"""Microseconds since 1970, UTC."""


class Ledger:
    """A run's journal and observers. The observers are called in order, and not guarded.

    Raises:
        StoreError: the journal could not be written.
    """

    def __init__(self, journal: JournalWriter, observers: Sequence[Observer], clock: Clock) -> None:
        self._journal = journal
        self._observers = observers
        self.now_us = clock

    def record(self, record: Record) -> ResultRef:
        """Append a record and return where it lies."""
        return ResultRef(self._journal.append(encode(record)))

    def emit(self, event: RunEvent) -> None:
        """Tell the observers."""
        for observer in self._observers:
            observer(event)

    def close_anyhow(self, done: RunDone) -> None:
        """Write and tell the end as far as can be: the journal or an observer may be broken."""
        try:
            self.record(done_record(done))
        except Exception:  # noqa: BLE001 - the error that broke the run is the one to be raised
            done = replace(done, is_journaled=False)
        for observer in self._observers:
            with suppress(Exception):
                observer(done)


def done_record(done: RunDone, seal: Seal | None = None) -> RunDoneRecord:
    """The journal's form of the end of a run."""
    return RunDoneRecord(
        done.at_us, done.status, done.reason, done.failure, done.failed_task, seal or {}
    )
