"""Requests are limited, timed and tried again, in virtual time."""

import asyncio
from typing import Any

import pytest

from engine.errors import (
    StoreDeniedError,
    StoreError,
    StoreGaveUpError,
    StoreThrottledError,
    StoreUnavailableError,
    StoreUnreachableError,
)
from engine.stores.s3 import requests as ask
from engine.stores.s3.pacing import Pace, PacedSender, RetryBudget
from engine.testing.s3 import FaultySender, MemorySender
from engine.testing.virtual_time import run

_SEND_S = 0.01  # a last attempt begins before the deadline


class _Scripted:
    """Fails each request with the next of `errors`, then with the last for ever; None succeeds."""

    def __init__(self, *errors: StoreError | None) -> None:
        self.errors = list(errors)
        self.sends = 0

    async def send(self, request: ask.Request[Any]) -> Any:  # Any: no matter which
        self.sends += 1
        await asyncio.sleep(_SEND_S)
        error = self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]
        if error is not None:
            raise error
        return None

    async def aclose(self) -> None:
        pass


def _put(key: str = "k") -> ask.Put:
    return ask.Put(key=key, body=b"x", writer="w")


async def _failure(sender: ask.Sender, request: ask.Request[Any]) -> tuple[float, Exception]:
    """How many seconds it took to fail, and how it did."""
    began = asyncio.get_running_loop().time()
    with pytest.raises(StoreError) as caught:
        await sender.send(request)
    return asyncio.get_running_loop().time() - began, caught.value


def test_a_failure_that_passes_is_not_seen() -> None:
    inner = _Scripted(StoreUnavailableError("cannot do: it"), StoreThrottledError("no: x"), None)
    run(PacedSender(inner, Pace()).send(_put()))
    assert inner.sends == 3


def test_what_trying_again_cannot_mend_is_told_at_once() -> None:
    inner = _Scripted(StoreDeniedError("denied"))
    elapsed_s, error = run(_failure(PacedSender(inner, Pace()), _put()))
    assert isinstance(error, StoreDeniedError)
    assert inner.sends == 1
    assert elapsed_s < 3


def test_an_endpoint_where_nothing_ever_answered_is_told_in_three_seconds() -> None:
    inner = _Scripted(StoreUnreachableError("cannot connect", hint="is it right?"))
    elapsed_s, error = run(_failure(PacedSender(inner, Pace()), _put()))
    assert isinstance(error, StoreUnreachableError)
    assert error.hint == "is it right?"
    assert elapsed_s <= 3


def test_a_server_that_answered_once_is_waited_for_until_the_deadline() -> None:
    inner = _Scripted(None, StoreUnreachableError("cannot write s3://b/k: connection refused"))

    async def scenario() -> tuple[float, Exception]:
        sender = PacedSender(inner, Pace(deadline_s=60))
        await sender.send(_put())
        return await _failure(sender, _put())

    elapsed_s, error = run(scenario())
    assert 50 < elapsed_s <= 60 + _SEND_S
    assert isinstance(error, StoreGaveUpError)


def test_a_request_that_is_given_up_says_what_how_long_and_how_often() -> None:
    inner = _Scripted(StoreUnavailableError("cannot write s3://b/key: InternalError"))
    _, error = run(_failure(PacedSender(inner, Pace(deadline_s=30)), _put()))
    assert isinstance(error, StoreGaveUpError)
    assert error.doing == "write s3://b/key"
    assert error.attempts == inner.sends
    assert 20 < error.elapsed_s <= 30 + _SEND_S
    assert f"could not write s3://b/key in {error.elapsed_s:.1f} s" in error.message
    assert "InternalError" in error.message


def test_a_server_that_says_nothing_is_given_up_and_asked_again() -> None:
    inner = FaultySender(MemorySender(), lambda: 1.0, kinds=["silent"])
    elapsed_s, error = run(_failure(PacedSender(inner, Pace(deadline_s=60)), _put()))
    assert isinstance(error, StoreGaveUpError)
    assert "no answer in 10.0 s" in error.message
    assert 4 <= inner.sends <= 7
    assert elapsed_s < 75


def test_requests_at_once_are_limited() -> None:
    inner = MemorySender(latency_s=1.0)

    async def scenario() -> None:
        sender = PacedSender(inner, Pace(concurrency=7))
        async with asyncio.TaskGroup() as group:
            for n in range(50):
                group.create_task(sender.send(_put(str(n))))

    run(scenario())
    assert inner.most_active == 7


def test_slow_down_halves_the_requests_at_once_and_success_brings_them_back() -> None:
    inner = _Scripted(StoreThrottledError("SlowDown"))

    async def fail(sender: ask.Sender) -> None:
        with pytest.raises(StoreGaveUpError):
            await sender.send(_put())

    async def scenario() -> tuple[float, float]:
        sender = PacedSender(inner, Pace(concurrency=64, deadline_s=0))
        async with asyncio.TaskGroup() as group:  # eight at once are one reason to slow down
            for _ in range(8):
                group.create_task(fail(sender))
        after_faults = sender.window.size
        inner.errors = [None]
        for _ in range(3000):
            await sender.send(_put())
        return after_faults, sender.window.size

    assert run(scenario()) == (32.0, 64.0)


def test_one_request_is_always_let_through() -> None:
    async def scenario() -> float:
        inner = _Scripted(StoreThrottledError("SlowDown"))
        sender = PacedSender(inner, Pace(concurrency=8, deadline_s=0))
        for _ in range(20):
            with pytest.raises(StoreGaveUpError):
                await sender.send(_put())
        return sender.window.size

    assert run(scenario()) == 1.0


def test_a_cancelled_waiter_leaves_its_turn_to_the_next() -> None:
    async def scenario() -> int:
        inner = MemorySender(latency_s=1.0)
        sender = PacedSender(inner, Pace(concurrency=1))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sender.send(_put(str(n)))) for n in range(5)]
            await asyncio.sleep(0.5)
            tasks[1].cancel()  # waiting
            await asyncio.sleep(1.0)
            tasks[2].cancel()  # under way
        return inner.count(ask.Put)

    assert run(scenario()) == 4


def test_the_budget_of_retries_is_refilled_by_time_and_by_success() -> None:
    async def scenario() -> list[float]:
        clock = asyncio.get_running_loop().time
        budget = RetryBudget(burst=2, per_s=1)
        taken_at = []
        for _ in range(4):
            assert await budget.take(10)
            taken_at.append(clock())
        assert not await budget.take(0.5)
        budget.earn()
        assert await budget.take(0.1)
        return taken_at

    assert run(scenario()) == pytest.approx([0, 0, 1, 2])


def test_a_success_lets_the_next_retry_go_at_once() -> None:
    async def scenario() -> float:
        budget = RetryBudget(burst=1, per_s=0.01)
        assert await budget.take(1)
        async with asyncio.TaskGroup() as group:
            waiters = [group.create_task(budget.take(1000)) for _ in range(3)]
            await asyncio.sleep(5)
            waiters[0].cancel()
            await asyncio.sleep(0)
            budget.earn()
            await waiters[1]
            budget.earn()
        return asyncio.get_running_loop().time()

    assert run(scenario()) == 5
