"""Catches engine code that blocks the event loop, as anyio's conftest does for anyio.

Two nets. A call that waits (sleep, join, a blocking socket or pipe ...) made by engine code while a
loop runs in its thread raises where it is made. A callback that holds the loop without such a call
is told afterwards: by its CPU time, which a busy machine does not lengthen, or by a long wait.
What the collector of garbage takes is no callback's: it walks what all tests have left in memory.
uvloop runs its callbacks itself, so only the first net covers it.
"""

import asyncio
import concurrent.futures
import fcntl
import gc
import os
import queue
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CALLBACK_CPU_S = 0.5
CALLBACK_WAIT_S = 3.0

_Target = tuple[object, str, Callable[..., bool]]


class BlockedLoopError(AssertionError):
    """Engine code waited while an event loop was running in its thread."""


@contextmanager
def loop_guard(package: str = "engine") -> Iterator[list[str]]:
    """Watch until the end of the block; yields the list that offences are added to.

    The list matters because a handler in the engine may swallow the error that was raised.
    """
    offences: list[str] = []
    undo: list[tuple[object, str, Any, bool]] = []  # Any: whatever the attribute was
    for owner, name, would_block in _TARGETS:
        undo.append((owner, name, getattr(owner, name), name in vars(owner)))
        guarded = _guarded(getattr(owner, name), f"{_label(owner)}.{name}", would_block)
        setattr(owner, name, guarded(offences, package))
    handle_run = asyncio.Handle._run
    collector = _CollectorClock()
    gc.callbacks.append(collector)
    asyncio.Handle._run = _timed(handle_run, collector, offences)  # type: ignore[method-assign]  # undone below
    try:
        yield offences
    finally:
        gc.callbacks.remove(collector)
        asyncio.Handle._run = handle_run  # type: ignore[method-assign]  # as above
        for owner, name, original, own in undo:
            if own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)


def _label(owner: object) -> str:
    return getattr(owner, "__name__", type(owner).__name__)


def _guarded(
    original: Callable[..., Any], label: str, would_block: Callable[..., bool]
) -> Callable[[list[str], str], Callable[..., Any]]:
    def bind(offences: list[str], package: str) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:  # Any: passes on what it does not know
            if asyncio._get_running_loop() is not None:
                culprit = _culprit(package)
                if culprit and would_block(*args, **kwargs):
                    offences.append(f"{culprit} called {label}, which blocks the event loop")
                    raise BlockedLoopError(offences[-1])
            return original(*args, **kwargs)

        return guarded

    return bind


def _culprit(package: str) -> str | None:
    """The innermost frame of the package below the loop, unless asyncio itself makes the call."""
    frame = sys._getframe(2)
    while frame.f_globals.get("__name__", "").partition(".")[0] in _STDLIB_WAITERS:
        if frame.f_code in _SHORT_WAITS:
            return None
        assert frame.f_back is not None
        frame = frame.f_back
    if frame.f_globals.get("__name__", "").startswith("asyncio"):
        return None
    walk: Any = frame  # Any: a frame or None, and mypy cannot follow the loop
    while walk is not None:
        name = walk.f_globals.get("__name__", "")
        if name == package or name.startswith(package + "."):
            return f"{name}:{walk.f_lineno} {walk.f_code.co_qualname}"
        walk = walk.f_back
    return None


# Wait for a thread or a process to be there, not for what it does.
_SHORT_WAITS = {threading.Thread.start.__code__, subprocess.Popen.__init__.__code__}
_STDLIB_WAITERS = {"subprocess", "threading", "queue", "socket", "concurrent"}


class _CollectorClock(threading.local):
    """Counts the CPU seconds that collections of garbage have taken in this thread."""

    cpu_s = 0.0
    _began_s = 0.0

    def __call__(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._began_s = time.thread_time()
        else:
            self.cpu_s += time.thread_time() - self._began_s


def _timed(
    run: Callable[[asyncio.Handle], None], collector: _CollectorClock, offences: list[str]
) -> Callable[..., None]:
    def timed(handle: asyncio.Handle) -> None:
        cpu, wall, collected = time.thread_time(), time.perf_counter(), collector.cpu_s
        run(handle)
        cpu = time.thread_time() - cpu
        waited = time.perf_counter() - wall - cpu
        cpu -= collector.cpu_s - collected
        if cpu > CALLBACK_CPU_S:
            offences.append(f"{handle!r} computed on the event loop for {cpu:.2f} s")
        elif waited > CALLBACK_WAIT_S:
            offences.append(f"{handle!r} waited on the event loop for {waited:.2f} s")

    return timed


def _always(*args: Any, **kwargs: Any) -> bool:
    return True


def _socket_blocks(sock: socket.socket, *args: Any, **kwargs: Any) -> bool:
    return sock.gettimeout() != 0


def _pipe_blocks(fd: int, *args: Any, **kwargs: Any) -> bool:
    mode = os.fstat(fd).st_mode
    return (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)) and os.get_blocking(fd)


def _wait_blocks(pid: int, options: int) -> bool:
    return not options & os.WNOHANG


def _lock_blocks(fd: object, operation: int) -> bool:
    return not operation & (fcntl.LOCK_NB | fcntl.LOCK_UN)


def _queue_blocks(q: object, *args: Any, **kwargs: Any) -> bool:
    return bool(kwargs.get("block", args[0] if args else True))


def _future_blocks(future: "concurrent.futures.Future[Any]", *args: Any, **kwargs: Any) -> bool:
    return not future.done()


def _thread_blocks(thread: threading.Thread, *args: Any, **kwargs: Any) -> bool:
    return thread.is_alive()


def _process_blocks(process: "subprocess.Popen[Any]", *args: Any, **kwargs: Any) -> bool:
    return process.poll() is None


_SOCKET_CALLS = (
    *("accept", "connect", "recv", "recv_into", "recvfrom", "recvmsg"),
    *("send", "sendall", "sendmsg", "sendto"),
)
_TARGETS: tuple[_Target, ...] = (
    (time, "sleep", _always),
    (os, "read", _pipe_blocks),
    (os, "waitpid", _wait_blocks),
    (fcntl, "flock", _lock_blocks),
    (subprocess.Popen, "wait", _process_blocks),
    (subprocess.Popen, "communicate", _process_blocks),
    (queue.Queue, "get", _queue_blocks),
    (concurrent.futures.Future, "result", _future_blocks),
    (threading.Thread, "join", _thread_blocks),
    (threading.Event, "wait", lambda event, *_, **__: not event.is_set()),
    *((socket.socket, name, _socket_blocks) for name in _SOCKET_CALLS),
)
