"""Waits and acts for the fleet: timers, containers, logs, events. One loop owns all jobs.

Requests come from the threads of the HTTP server, and are carried out on the loop one by one.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from engine.testing.batch.account import Account
from engine.testing.batch.fleet import Command, Fleet, Start, Stop
from engine.testing.batch.jobs import Job, Outcome
from engine.testing.batch.news import Announce

REQUEST_S = 60.0
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Runner(Protocol):
    """Runs containers."""

    async def run(
        self, start: Start, started: Callable[[], None], write: Callable[[Sequence[str]], None]
    ) -> Outcome: ...

    def signal(self, job: Job, node: int, number: int) -> None: ...

    def kill_all(self) -> None: ...


class Clock:
    """Seconds since 1970 that never go back, whatever is done to the machine's clock."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset + time.monotonic()


class Emulator:
    """Made on the loop that it lives on."""

    def __init__(self, fleet: Fleet, account: Account, runner: Runner, clock: Clock) -> None:
        self.fleet, self.account, self.clock = fleet, account, clock
        self._runner = runner
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._group: asyncio.TaskGroup | None = None

    async def serve(self, stop: asyncio.Event) -> None:
        """Carry out what the fleet wants until `stop`; then kill what runs."""
        async with asyncio.TaskGroup() as self._group:
            await stop.wait()
            self._group, group = None, self._group
            if self._timer:
                self._timer.cancel()
            self._runner.kill_all()
            del group

    def request(self, act: Callable[[Fleet, float], T]) -> T:
        """Carry out a request; called from a thread of the HTTP server."""
        return asyncio.run_coroutine_threadsafe(self._carry_out(act), self._loop).result(REQUEST_S)

    async def _carry_out(self, act: Callable[[Fleet, float], T]) -> T:
        try:
            return act(self.fleet, self.clock.now())
        finally:
            self._go_on()

    def _go_on(self) -> None:
        """Perform what is due and set the timer for what comes next."""
        if self._group is None:
            return
        self.fleet.news.listens = self.account.listens
        self.fleet.timers.advance(self.clock.now())
        commands, self.fleet.commands = self.fleet.commands, []
        for command in commands:
            self._perform(command)
        if self._timer:
            self._timer.cancel()
        due = self.fleet.timers.due()
        if due is not None:
            delay_s = max(0.0, due - self.clock.now())
            self._timer = self._loop.call_later(delay_s, self._go_on)

    def _perform(self, command: Command) -> None:
        match command:
            case Start() if self._group:
                self._group.create_task(self._contain(command))
            case Stop(job, node, attempt, number):
                if job.attempt == attempt:
                    self._runner.signal(job, node, number)
            case Announce(detail):
                try:
                    self.account.announce(detail)
                except Exception as error:  # noqa: BLE001  # a rule's target may be gone
                    _log.warning("a change of state was not told: %s", error)

    async def _contain(self, start: Start) -> None:
        """Run a container and tell the fleet of it."""
        job, node, attempt = start.job, start.node, start.attempt
        group = job.work.nodes[node].log_group

        def started() -> None:
            self.fleet.started(job, node, attempt, self.clock.now())
            self._loop.call_soon(self._go_on)

        def write(lines: Sequence[str]) -> None:
            at_ms = int(self.clock.now() * 1000)
            self.account.write_log(group, start.log_stream, lines, at_ms)

        try:
            self.account.open_log(group, start.log_stream)
            outcome = await self._runner.run(start, started, write)
        except Exception as error:  # noqa: BLE001  # moto refuses a log group in ways of its own
            outcome = Outcome(None, f"CannotStartContainerError: {error}")
        self.fleet.ended(job, node, attempt, outcome, self.clock.now())
        self._go_on()
