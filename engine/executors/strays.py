"""What ended tasks left running, and the news of those ends that waits until it is gone.

A task that ends while its own children live hands them to the zygote, their subreaper; so any child
of the zygote that is no task is a stray. It is asked to go, then killed, and only then is the end
of its task told. Which task a stray came from cannot be known, only in which batch of deaths.
"""

import contextlib
import os
import signal
import time
from collections.abc import Container, Iterable

from msgspec import Struct, field

from engine.executors import process

STRAY_GRACE_S = 0.1
"""Enough for multiprocessing's tracker to unlink what the task left in shared memory."""


class _Batch(Struct):
    """Ends of tasks that died together, and the strays that were found then."""

    news: list[bytes]
    strays: set[int] = field(default_factory=set)


class Strays:
    """Made when the zygote begins to serve: what the user's module started while it was imported
    is there already, and is no stray.
    """

    def __init__(self) -> None:
        self._known = frozenset(process.own_children())
        self._kill_at: dict[int, float] = {}
        self._batches: list[_Batch] = []

    def due(self) -> Iterable[float]:
        """When `kill_overdue` has something to do, by the monotonic clock."""
        return self._kill_at.values()

    def look(self, tasks: Container[int], dead: Iterable[int], news: list[bytes]) -> None:
        """Find strays after the children `dead` were reaped, and hold `news` for them."""
        concerned = []
        for pid in dead:
            if self._kill_at.pop(pid, None) is not None:
                concerned += [b for b in self._batches if pid in b.strays]
                for batch in self._batches:
                    batch.strays.discard(pid)
        if news:
            concerned.append(_Batch(news))
            self._batches.append(concerned[-1])
        expected = (tasks, self._kill_at, self._known)
        found = [p for p in process.own_children() if not any(p in pids for pids in expected)]
        for pid in found:
            self._kill_at[pid] = time.monotonic() + STRAY_GRACE_S
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for batch in concerned:
            batch.strays.update(found)

    def kill_overdue(self, now: float) -> None:
        for pid, at in self._kill_at.items():
            if at <= now:
                process.kill_group(pid, signal.SIGKILL)
                self._kill_at[pid] = now + STRAY_GRACE_S

    def take_free(self) -> list[bytes]:
        """The news whose strays are gone."""
        if not self._batches:
            return []
        free = [news for batch in self._batches if not batch.strays for news in batch.news]
        self._batches = [batch for batch in self._batches if batch.strays]
        return free
