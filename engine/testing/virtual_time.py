"""An event loop whose clock jumps: when every task waits on time, the wait is over at once.

Sleeping an hour costs microseconds and always ends in the same order, so tests of retries,
time-outs and polling are fast and exact. Only timers are virtual: real sockets and threads work,
but the clock may jump while one of them is awaited together with a timer.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH_US = 1_767_225_600_000_000
"""What `clock` says when a virtual loop starts: 2026-01-01 00:00 UTC."""

STUCK_S = 5.0
"""By default; threads may take that long."""


class StuckError(Exception):
    """Every task waits for something that no timer will bring about."""


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(
        self, advance: Callable[[float], None], on_turn: Callable[[], None], stuck_s: float
    ) -> None:
        super().__init__()
        self._advance = advance
        self._on_turn = on_turn
        self._stuck_s = stuck_s

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._on_turn()
        if timeout is None:
            ready = super().select(self._stuck_s)
            if not ready:
                raise StuckError
            return ready
        ready = super().select(0)
        if not ready and timeout > 0:
            self._advance(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that starts at second 0.

    Args:
        on_turn: called once each turn of the loop. What it raises stops the loop dead, between two
            callbacks, as a killed process stops.
        stuck_s: real seconds without any timer before the loop is taken to be stuck; 0 will do
            where no thread and no socket is waited for.
    """

    def __init__(
        self, on_turn: Callable[[], None] = lambda: None, *, stuck_s: float = STUCK_S
    ) -> None:
        self._now_s = 0.0
        super().__init__(_JumpingSelector(self._advance, on_turn, stuck_s))

    def time(self) -> float:
        return self._now_s

    def _advance(self, seconds: float) -> None:
        self._now_s += seconds


def clock() -> int:
    """Microseconds since 1970 by the running virtual loop."""
    return EPOCH_US + round(asyncio.get_running_loop().time() * 1_000_000)


def run(
    main: Coroutine[Any, Any, T],  # Any: a coroutine's send and yield types, which nobody uses
    *,
    on_turn: Callable[[], None] = lambda: None,
    stuck_s: float = STUCK_S,
) -> T:
    """Run `main` to completion in virtual time. See VirtualTimeLoop.

    Raises:
        StuckError: nothing could go on any more.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(on_turn, stuck_s=stuck_s)) as runner:
        return runner.run(main)
