"""A loop in a thread for callers that have none: it ends when told to, and holds nobody up."""

import asyncio
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import CancelledError

import pytest

from engine.stores.remote.portal import Portal


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
        from engine.stores.remote.portal import Portal

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
