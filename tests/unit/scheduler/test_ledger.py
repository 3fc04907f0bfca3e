"""Observers hear of what the journal has, and, where power may fail, of what is on the disk."""

from collections.abc import Callable

import pytest

from engine.errors import StoreUnavailableError
from engine.scheduler.journal import CancelRequestedRecord
from engine.scheduler.ledger import Ledger
from engine.scheduler.progress import RunBegan, RunDone, RunEvent
from engine.testing.fakes import MemoryJournal

BEGAN, DONE = RunBegan("F", "R", 1), RunDone("failed", 2)


def ledger(
    sync: Callable[[], None] | None = None, *, room_bytes: int | None = None
) -> tuple[Ledger, list[RunEvent]]:
    heard: list[RunEvent] = []
    journal = MemoryJournal(room_bytes=room_bytes)
    return Ledger(journal, [heard.append], lambda: 0, sync), heard


async def test_without_a_sync_an_event_is_told_at_once() -> None:
    book, heard = ledger()
    book.emit(BEGAN)
    assert heard == [BEGAN]
    await book.settle()
    assert heard == [BEGAN]


async def test_r02_events_wait_for_one_sync_and_keep_their_order() -> None:
    syncs: list[int] = []
    book, heard = ledger(lambda: syncs.append(len(heard)))
    book.emit(BEGAN)
    book.emit(DONE)
    assert heard == []
    await book.settle()
    assert heard == [BEGAN, DONE]
    assert syncs == [0], "one sync, before anybody is told"
    await book.settle()
    assert syncs == [0]


async def test_r02_nobody_is_told_of_what_could_not_be_synced() -> None:
    def refuse() -> None:
        raise StoreUnavailableError("the disk is gone")

    book, heard = ledger(refuse)
    book.emit(BEGAN)
    with pytest.raises(StoreUnavailableError):
        await book.settle()
    assert heard == []


def test_r08_an_end_that_the_journal_does_not_take_is_told_as_such() -> None:
    book, heard = ledger(room_bytes=10)
    with pytest.raises(StoreUnavailableError):
        book.record(CancelRequestedRecord(1, "why"))
    book.close_anyhow(DONE)
    (told,) = heard
    assert isinstance(told, RunDone)
    assert not told.is_journaled
    fine, heard = ledger()
    fine.record(CancelRequestedRecord(1, "why"))
    fine.close_anyhow(DONE)
    assert heard == [DONE]
