"""Who plays: the product's own modules, or some with a bug planted in them."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

from engine.scheduler import driver, flights, jobs, ledger, memo
from engine.scheduler.journal import JournalReader, JournalWriter


class AnyJournal(JournalReader, JournalWriter, Protocol):
    """Both ends of a journal."""


def _as_it_is(journal: AnyJournal) -> AnyJournal:
    return journal


@dataclass(frozen=True)
class Cast:
    """The scheduler's modules that wait, and the memo, in order of import; what writes for them."""

    flights: ModuleType = flights
    ledger: ModuleType = ledger
    jobs: ModuleType = jobs
    memo: ModuleType = memo
    driver: ModuleType = driver
    journal: Callable[[AnyJournal], AnyJournal] = _as_it_is


AS_SHIPPED = Cast()
