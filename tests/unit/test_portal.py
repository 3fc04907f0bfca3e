"""A loop in a thread for callers that have none: it ends when told to, and holds nobody up."""

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import CancelledError

import pytest

from engine.portal import Call, Portal


class Made:
    """What a portal calls."""

    def __init__(self) -> None:
        self.closed_in: str | None = None

    async def name(self) -> str:
        return threading.current_thread().name

    async def aclose(self) -> None:
        self.closed_in = threading.current_thread().name


def test_what_is_called_lives_in_the_thread_of_the_portal_and_is_closed_there() -> None:
    made = Made()
    portal = Portal(lambda: made)
    assert portal.call(lambda m: m.name()) == "aflow portal"
    portal.close()
    assert made.closed_in == "aflow portal"


def test_a_closed_portal_can_be_used_again() -> None:
    portal = Portal(Made)
    for _ in range(2):
        portal.call(lambda m: m.name())
        portal.close()
    portal.close()


def test_a_program_ends_that_has_closed_no_portal() -> None:
    program = """
        from engine.portal import Portal

        class Made:
            async def aclose(self): print("closed")

        class Reader:
            def __init__(self): self.portal = Portal(Made)
            def __del__(self): self.portal.close()

        async def nothing(made): pass

        reader = Reader()
        reader.portal.call(nothing)
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\n", "")


def test_a_fork_has_a_loop_of_its_own_and_leaves_that_of_its_parent_alone() -> None:
    program = """
        import os
        from engine.portal import Portal

        class Made:
            async def aclose(self): print("closed by", who, flush=True)

        async def pid(made): return os.getpid()

        who = "parent"
        portal = Portal(Made)
        assert portal.call(pid) == os.getpid()
        portal._lock.acquire()  # as another thread may have done
        child = os.fork()
        if not child:
            who = "child"
            assert portal.call(pid) == os.getpid()
            portal.close()
            os._exit(0)
        portal._lock.release()
        assert os.waitpid(child, 0)[1] == 0
        assert portal.call(pid) == os.getpid()
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "closed by child\nclosed by parent\n"


def test_a_portal_may_be_closed_by_its_own_thread() -> None:
    """As the collector of garbage does that finds a forgotten reader there."""
    made = Made()
    portal = Portal(lambda: made)

    async def close(_: Made) -> threading.Thread:
        portal.close()
        return threading.current_thread()

    thread = portal.call(close)
    thread.join(5)
    assert not thread.is_alive()
    assert made.closed_in == "aflow portal"


def test_who_waits_for_a_portal_that_is_closed_is_told() -> None:
    portal, waiting = Portal(Made), threading.Event()

    async def forever(_: Made) -> None:
        waiting.set()
        await asyncio.Event().wait()

    def close() -> None:
        waiting.wait(5)
        portal.close()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(CancelledError):
        portal.call(forever)
    closing.join()


INTERRUPTED = """
import asyncio
from engine.portal import Portal

class Made:
    async def aclose(self): print("closed", flush=True)

portal = Portal(Made)

async def work(made):
    print("waiting", flush=True)
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        print("cleaned up", flush=True)

try:
    portal.call(work)
except KeyboardInterrupt:
    print("interrupted", flush=True)
portal.close()
"""


async def loop_id(_: Made) -> int:
    return id(asyncio.get_running_loop())


async def fail(_: Made) -> None:
    raise ValueError("so")


def test_all_calls_are_of_one_loop_and_close_ends_its_thread() -> None:
    portal = Portal(Made)
    before = threading.active_count()

    assert portal.call(loop_id) == portal.call(loop_id)
    with pytest.raises(ValueError, match="so"):
        portal.call(fail)
    assert threading.active_count() == before + 1
    portal.close()
    portal.close()

    assert threading.active_count() == before


@pytest.mark.unguarded
async def test_a_portal_works_while_the_caller_s_own_loop_runs() -> None:
    portal = Portal(Made)

    assert portal.call(loop_id) != id(asyncio.get_running_loop())
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

    assert (rest, process.returncode) == ("cleaned up\ninterrupted\nclosed\n", 0)


async def test_what_is_cancelled_before_it_begins_never_begins() -> None:
    begun: list[str] = []

    async def work() -> None:
        begun.append("it")

    call = Call(work)
    call.cancel()
    call.start()
    await asyncio.sleep(0)

    assert call.done.cancelled()
    assert begun == []
