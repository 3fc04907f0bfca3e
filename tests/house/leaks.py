"""What a test may not leave behind: processes, threads, asyncio tasks, file descriptors.

Orphans count too: whatever a test starts inherits a mark in its environment, so the children that
outlive a killed driver or zygote are found by their mark, wherever they hang in the process tree.
"""

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRACE_S = 2.0
"""How long what is ending already may take: FAULTS.md lets orphans live this long."""
SERVER_GRACE_S = 20.0
"""The same for servers under test (engine.testing): none of the engine's processes."""

MARK = "TESTED_BY"  # not AFLOW_...: an unknown setting would be an error
_SPAWNING = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}


class Spawns:
    """Tells whether this process started another one: most tests do not, and need no search."""

    def __init__(self) -> None:
        self.seen = False
        sys.addaudithook(self._hear)  # can never be taken out: one for the whole session

    def _hear(self, event: str, args: object) -> None:
        if event in _SPAWNING:
            self.seen = True


@dataclass(frozen=True)
class Belongings:
    """What this process has at one moment."""

    processes: dict[int, str]
    threads: dict[int, str]
    descriptors: dict[int, str]

    @classmethod
    def now(cls) -> "Belongings":
        threads = {
            t.ident: t.name for t in threading.enumerate() if t.ident is not None and not t.daemon
        }
        return cls(_children(), threads, _descriptors())

    def extra(self, before: "Belongings") -> list[str]:
        """What is here and was not there `before`; a number used anew for another file is new."""
        return [
            *(f"process {p}: {c}" for p, c in self.processes.items() if p not in before.processes),
            *(f"thread {name}" for i, name in self.threads.items() if i not in before.threads),
            *(
                f"descriptor {fd}: {target}"
                for fd, target in self.descriptors.items()
                if before.descriptors.get(fd) != target
            ),
        ]


def left_behind(before: Belongings, mark: str | None) -> list[str]:
    """Name what is still there after the grace time, and kill the processes among it.

    Args:
        before: what was there when the test began.
        mark: the value of MARK in the environment of what the test started; None if it did not
            start anything.
    """
    since_s = time.monotonic()
    while True:
        orphans = marked(mark) if mark else {}
        extra = Belongings.now().extra(before)
        extra += [
            f"process {pid}: {c}"
            for pid, c in orphans.items()
            if f"process {pid}: {c}" not in extra
        ]
        if not extra:
            return []
        has_server = any(" -m engine.testing." in line for line in extra)
        if time.monotonic() - since_s > (SERVER_GRACE_S if has_server else GRACE_S):
            _kill((orphans.keys() | _children().keys()) - before.processes.keys())
            return extra
        gc.collect()  # a transport or a file in a reference cycle is closed by the collector
        if obstore := sys.modules.get("obstore.store"):
            # Its threads close the sockets of a store that is gone when next they are awake.
            obstore.MemoryStore().put("wake", b"")
        time.sleep(0.01)


@contextmanager
def watched_tasks() -> Iterator[list[str]]:
    """Yield the list of tasks that were pending when their loop was closed by asyncio.Runner."""
    pending: list[str] = []
    module: Any = asyncio.runners  # Any: the hook is private to asyncio
    original: Callable[[asyncio.AbstractEventLoop], None] = module._cancel_all_tasks

    def cancel_all_tasks(loop: asyncio.AbstractEventLoop) -> None:
        # asyncio closes generators that were left half-way in tasks of its own, at any time.
        pending.extend(
            repr(task)
            for task in asyncio.all_tasks(loop)
            if not task.cancelling() and "async_generator_athrow" not in repr(task.get_coro())
        )
        original(loop)

    module._cancel_all_tasks = cancel_all_tasks
    try:
        yield pending
    finally:
        module._cancel_all_tasks = original


def _descriptors() -> dict[int, str]:
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:
            continue  # the listing's own
    return found


def _children() -> dict[int, str]:
    """Living children by pid, with their command lines. The dead of this process are not leaks."""
    found = {}
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            pids = listing.read_text().split()
        except (FileNotFoundError, ProcessLookupError):  # that thread has ended
            continue
        for pid in pids:
            command = _command(int(pid))
            if command and "multiprocessing.resource_tracker" not in command:
                found[int(pid)] = command
    return found


def marked(mark: str) -> dict[int, str]:
    words = f"{MARK}={mark}".encode()
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid() and words in _environment(entry):
            command = _command(int(entry))
            if command:
                found[int(entry)] = command
    return found


def _environment(pid: str) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []  # gone, or somebody else's


def _command(pid: int) -> str | None:
    """None for what is gone or only waits to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else words.replace(b"\0", b" ").decode(errors="replace").strip()


def _kill(pids: set[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
