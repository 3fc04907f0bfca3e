"""A loop in a thread for callers that do not await."""

import asyncio
import signal
import subprocess
import sys
import threading

import pytest

from engine.s3.joined import both, together
from engine.s3.portal import Portal, _Call

INTERRUPTED = """
import asyncio
from engine.s3.portal import Portal

portal = Portal("p")

async def work():
    print("waiting", flush=True)
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        print("cleaned up", flush=True)

try:
    portal.call(work())
except KeyboardInterrupt:
    print("interrupted", flush=True)
portal.close()
"""


async def loop_id() -> int:
    return id(asyncio.get_running_loop())


async def fail() -> None:
    raise ValueError("so")


def test_all_calls_are_of_one_loop_and_close_ends_its_thread() -> None:
    portal = Portal("portal")
    before = threading.active_count()

    assert portal.call(loop_id()) == portal.call(loop_id())
    with pytest.raises(ValueError, match="so"):
        portal.call(fail())
    assert threading.active_count() == before + 1
    portal.close()
    portal.close()

    assert threading.active_count() == before


def test_a_portal_that_was_never_used_can_be_closed() -> None:
    Portal("portal").close()


@pytest.mark.unguarded
async def test_a_portal_works_while_the_caller_s_own_loop_runs() -> None:
    portal = Portal("portal")

    assert portal.call(loop_id()) != await loop_id()
    portal.close()


def test_an_interrupt_cancels_what_runs_and_is_raised_when_it_has_ended() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)

    assert (rest, process.returncode) == ("cleaned up\ninterrupted\n", 0)


async def test_the_first_failure_ends_the_others_and_is_raised_as_itself() -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("the other")

    with pytest.raises(ValueError, match="so"):
        await together([wait(), fail()])
    with pytest.raises(ValueError, match="so"):
        await both(wait(), fail())

    assert ended == ["the other", "the other"]


async def test_two_results_come_together() -> None:
    async def one() -> int:
        return 1

    async def two() -> str:
        return "2"

    assert await both(one(), two()) == (1, "2")


def test_what_is_cancelled_before_it_begins_never_begins() -> None:
    begun: list[str] = []

    async def work() -> None:
        begun.append("it")

    call = _Call(work())
    call.cancel()
    with asyncio.Runner() as runner:
        call.run(runner)

    assert begun == []
