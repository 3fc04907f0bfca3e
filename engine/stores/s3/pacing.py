"""How many requests are under way, how long each may take, and when one is tried again.

Back-off is by full jitter. Retries are paid for from a budget that each success and each second
refills, so a store in trouble sees a trickle of them, however many callers wait. The limit on
requests adapts to "slow down" as TCP does: half at once, then back by one for each full window.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from engine.config import Config
from engine.errors import (
    StoreGaveUpError,
    StoreThrottledError,
    StoreUnavailableError,
    StoreUnreachableError,
    UploadGoneError,
)
from engine.stores.s3.deadlines import Deadlines
from engine.stores.s3.requests import FinishUpload, Head, Put, R, Request, Sender


class Pace(Struct, frozen=True):
    """How hard to try.

    `first_s` is the patience with a server that never answered yet: most likely the endpoint is
    wrong. `slowest_bytes_s` is the slowest transfer that is still taken to be alive, `patience` a
    factor of the time that a server has beside that. `retries_s` refills the budget of `burst`.
    """

    concurrency: int = 64
    deadline_s: float = 120.0
    first_s: float = 2.5
    backoff_s: float = 0.05
    backoff_max_s: float = 5.0
    slowest_bytes_s: float = 512 * 1024
    patience: float = 1.0
    burst: float = 50.0
    retries_s: float = 10.0

    @classmethod
    def of(cls, config: Config) -> "Pace":
        return cls(concurrency=config.s3_concurrency, deadline_s=float(config.s3_deadline_s))


class Window:
    """How many requests may be under way at once: `size`, which is `most` until the server slows
    down. They are let through in order."""

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self.size = float(most)
        self.cuts = 0
        self._active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def try_enter(self) -> bool:
        """Enter if nobody has to wait for it."""
        if self._waiting or self._active >= int(self.size):
            return False
        self._active += 1
        return True

    async def enter(self) -> None:
        """Wait until it is this request's turn."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        self._active -= 1
        while self._waiting and self._active < int(self.size):
            turn = self._waiting.popleft()
            if not turn.done():
                self._active += 1
                turn.set_result(None)

    def widen(self) -> None:
        """A request was answered: a full window of them widens it by one."""
        if self.size < self._most:
            self.size = min(self._most, self.size + 1 / self.size)

    def cut(self, cuts: int) -> None:
        """Halve it, for a request that began after so many `cuts`: one reason counts once."""
        if cuts == self.cuts:
            self.cuts += 1
            self.size = max(1.0, self.size / 2)


class RetryBudget:
    """Retries that may be made: `burst` at first, one more for each success, and some by time."""

    def __init__(self, burst: float, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = burst
        self._at_s = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def earn(self) -> None:
        """A request succeeded: another may be tried again."""
        self._left = min(self._burst, self._left + 1)
        self._release()

    async def take(self, patience_s: float) -> bool:
        """Wait for a retry to be there and take it; False if there is none in time."""
        self._refill()
        if not self._waiting and self._left >= 1:
            self._left -= 1
            return True
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._wake_later()
        try:
            async with asyncio.timeout(patience_s):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done() and not turn.cancelled():
                self._left += 1  # it came at the same moment: the next one's
                self._release()
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def _refill(self) -> None:
        now_s = asyncio.get_running_loop().time()
        self._left = min(self._burst, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s

    def _release(self) -> None:
        while self._waiting and self._left >= 1:
            turn = self._waiting.popleft()
            if not turn.done():
                self._left -= 1
                turn.set_result(None)

    def _wake_later(self) -> None:
        if self._timer is None and self._waiting:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(1 / self._per_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._refill()
        self._release()
        self._wake_later()


class PacedSender:
    """Sends a request in its turn, and again while it fails in a way that may pass, until its
    deadline.

    A conditional write whose first reply was lost finds its own blob on the next try. Each write
    carries a token of its own, which tells whose blob is there: so exactly one writer is told that
    it won. `jitter` returns numbers of 0 to 1.
    """

    def __init__(
        self, inner: Sender, pace: Pace, *, jitter: Callable[[], float] = random.random
    ) -> None:
        self._inner = inner
        self._pace = pace
        self._jitter = jitter
        self.window = Window(pace.concurrency)
        self._deadlines = Deadlines()
        self._budget = RetryBudget(pace.burst, pace.retries_s)
        self._reached = False

    async def send(self, request: Request[R]) -> R:
        """See `requests.Sender`.

        Raises:
            StoreGaveUpError: it failed until the deadline; tells for how long and how often.
            StoreUnreachableError: nothing has ever answered.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        attempt = 0
        while True:
            attempt += 1
            try:
                reply = await self._once(request)
            except StoreUnavailableError as error:
                self._reached |= not isinstance(error, StoreUnreachableError)
                await self._wait(error, attempt, began)
            except UploadGoneError:
                if attempt > 1 and await self._is_ours(request):
                    return True  # type: ignore[return-value]  # what a FinishUpload returns
                raise
            else:
                self._reached = True
                self._budget.earn()
                if attempt > 1 and reply is False and await self._is_ours(request):
                    return True  # type: ignore[return-value]  # what such a request returns
                return reply

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _once(self, request: Request[R]) -> R:
        """Give up what takes longer than the server's time and that of its bytes."""
        window, pace = self.window, self._pace
        if not window.try_enter():
            await window.enter()
        cuts = window.cuts
        patience_s = pace.patience * request.server_s
        patience_s += request.flight_bytes / pace.slowest_bytes_s
        try:
            with self._deadlines.within(patience_s):
                reply = await self._inner.send(request)
            window.widen()
            return reply
        except StoreThrottledError:
            window.cut(cuts)
            raise
        except TimeoutError:
            window.cut(cuts)  # fewer at once may each be in time
            name = type(request).__name__.lower()
            problem = f"cannot {name} {request.key}: no answer in {patience_s:.1f} s"
            raise StoreThrottledError(problem) from None
        finally:
            window.leave()

    async def _wait(self, error: StoreUnavailableError, attempt: int, began_s: float) -> None:
        """Wait until the next attempt, or raise if that would be too late."""
        pace = self._pace
        clock = asyncio.get_running_loop().time
        patience_s = pace.deadline_s if self._reached else min(pace.first_s, pace.deadline_s)
        wait_s = self._jitter() * min(pace.backoff_max_s, pace.backoff_s * 2 ** min(attempt, 30))
        if clock() + wait_s < began_s + patience_s:
            await asyncio.sleep(wait_s)
            if await self._budget.take(began_s + patience_s - clock()):
                return
        if not self._reached:
            raise error
        doing, _, problem = error.message.removeprefix("cannot ").partition(": ")
        raise StoreGaveUpError(
            doing, elapsed_s=clock() - began_s, attempts=attempt, problem=problem, hint=error.hint
        ) from error

    async def _is_ours(self, request: Request[Any]) -> bool:  # Any: no matter which
        if not isinstance(request, Put | FinishUpload):
            return False
        found = await self.send(Head(key=request.key))
        return found is not None and found.writer == request.writer
