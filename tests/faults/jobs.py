"""What the fault tests of tasks share: jobs that are Python source, and whether a process lives."""

import asyncio
import textwrap
import time
from pathlib import Path

import pytest

from engine.executors.base import Job

ISOLATIONS = pytest.mark.parametrize("isolation", ["fork", "spawn"])


def job(name: str, source: str, deadline_s: float | None = None) -> Job:
    return Job(name, textwrap.dedent(source).encode(), deadline_s)


def is_alive(pid: int) -> bool:
    """Whether the process runs: what waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the latter between open and read
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


async def gone(pid: int, *, within_s: float = 2.0) -> bool:
    deadline = time.monotonic() + within_s
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.005)
    return True
