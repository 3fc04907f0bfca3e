"""A portal is closed by whoever has it, and by whatever becomes of that."""

import subprocess
import sys
import threading

from engine.stores.remote.portal import Portal

FORGOTTEN = """
from engine.stores.remote.portal import Portal

class Made:
    async def aclose(self):
        pass

class Reader:
    def __init__(self):
        self.portal = Portal(Made)

    def __del__(self):
        self.portal.close()

async def nothing(made):
    return "read"

reader = Reader()
reader.itself = reader
print(reader.portal.call(nothing))
"""


class Made:
    closed = 0

    async def aclose(self) -> None:
        Made.closed += 1


async def work(made: Made) -> str:
    return threading.current_thread().name


def test_a_program_that_closes_nothing_ends() -> None:
    done = subprocess.run([sys.executable, "-c", FORGOTTEN], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"read\n", b"")


def test_a_portal_that_was_closed_opens_again() -> None:
    Made.closed = 0
    portal: Portal[Made] = Portal(Made)
    assert portal.call(work) == "aflow portal"
    portal.close()
    assert portal.call(work) == "aflow portal"
    portal.close()
    assert Made.closed == 2


def test_a_portal_may_be_closed_from_its_own_thread() -> None:
    portal: Portal[Made] = Portal(Made)

    async def close(made: Made) -> threading.Thread:
        portal.close()
        return threading.current_thread()

    thread = portal.call(close)
    thread.join(10)
    assert not thread.is_alive()
