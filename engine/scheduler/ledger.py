"""How facts leave the driver: into the journal, and then to those who watch."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec.structs import replace

from engine.scheduler.events import ResultRef
from engine.scheduler.journal import (
    JournalWriter,
    Record,
    RunBeganRecord,
    RunDoneRecord,
    Seal,
    encode,
)
from engine.scheduler.progress import Observer, RunBegan, RunDone, RunEvent

Clock = Callable[[], int]
"""Microseconds since 1970, UTC."""


class Ledger:
    """A run's journal and observers. The observers are called in order, and not guarded.

    Args:
        journal: of the run.
        observers: hear of an event once the journal has what it tells of.
        clock: for those who write records.
        sync: makes what the journal has survive a loss of power. It takes milliseconds, so events
            wait for `settle`, and many of them for one sync. None: nobody waits.

    Raises:
        StoreError: the journal could not be written.
    """

    def __init__(
        self,
        journal: JournalWriter,
        observers: Sequence[Observer],
        clock: Clock,
        sync: Callable[[], None] | None = None,
    ) -> None:
        self._journal = journal
        self._observers = observers
        self.now_us = clock
        self._sync = sync
        self._waiting: list[RunEvent] = []
        self._has_begun = False

    def record(self, record: Record) -> ResultRef:
        """Append a record and return where it lies."""
        at = ResultRef(self._journal.append(encode(record)))
        self._has_begun = True
        return at

    def emit(self, event: RunEvent) -> None:
        """Tell the observers, now or with the next `settle`."""
        if self._sync is not None:
            self._waiting.append(event)
            return
        for observer in self._observers:
            observer(event)

    async def settle(self) -> None:
        """Sync the journal, and tell the observers what waited for that."""
        if self._sync is None or not self._waiting:
            return
        events, self._waiting = self._waiting, []
        await asyncio.to_thread(self._sync)
        for event in events:
            for observer in self._observers:
                observer(event)

    def close_anyhow(self, done: RunDone) -> None:
        """Write and tell the end as far as can be: the journal or an observer may be broken.

        A journal that has no beginning, for there was no room for it, gets no end.
        """
        try:
            if self._has_begun:
                self.record(done_record(done))
            else:
                done = replace(done, is_journaled=False)
            if self._sync is not None:
                self._sync()
        except Exception:  # noqa: BLE001 - the error that broke the run is the one to be raised
            done = replace(done, is_journaled=False)
        events, self._waiting = [*self._waiting, done], []
        for event in events:
            for observer in self._observers:
                with suppress(Exception):
                    observer(event)


def began_event(began: RunBeganRecord, warnings: tuple[str, ...]) -> RunBegan:
    """What observers hear of a run's first frame."""
    return RunBegan(began.flow, began.run_id, began.at_us, began.origin_run_id, warnings)


def done_record(done: RunDone, seal: Seal | None = None) -> RunDoneRecord:
    """The journal's form of the end of a run."""
    return RunDoneRecord(
        done.at_us, done.status, done.reason, done.failure, done.failed_task, seal or {}
    )
