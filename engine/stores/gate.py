"""The gate of a datastore: a run begins inside of it, and blobs are removed while it is shut.

It is a lock (flock) on the directory `runs`, which has no content of its own to change, so there is
no file to keep. A run holds it shared for the instant in which its directory and its lease are
made; a collection (gc.py) holds it alone while it removes one batch of blobs. So whoever has shut
the gate sees every run there is, and none begins meanwhile. The kernel opens it when its holder
dies, however it dies.
"""

import fcntl
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from engine.errors import StoreUnavailableError
from engine.stores.access import access_error

WAIT_S = 30.0
"""Far more than a batch takes, which is 30 ms; who waits longer waits for a stopped process."""

_POLL_S = 0.002


@asynccontextmanager
async def entered(runs: str, *, wait_s: float = WAIT_S) -> AsyncIterator[None]:
    """Nothing is removed inside this block. Waits until the batch that is being removed is done.

    Args:
        runs: the directory `runs` of the datastore.
        wait_s: how long to wait.

    Raises:
        StoreUnavailableError: the gate stayed shut.
        StoreAccessError: the file system refuses.
    """
    import asyncio  # noqa: PLC0415  # readers have no loop and pay 30 ms for it; see threads.py

    with _opened(runs) as fd:
        deadline = time.monotonic() + wait_s
        while not _try(fd, runs, fcntl.LOCK_SH):
            if time.monotonic() >= deadline:
                raise _stayed_shut(runs, wait_s)
            await asyncio.sleep(_POLL_S)
        yield


@contextmanager
def shut(runs: str, *, wait_s: float = WAIT_S) -> Iterator[None]:
    """No run begins inside this block. Waits until those that are beginning have begun.

    Raises:
        StoreUnavailableError: others held the gate for `wait_s` seconds.
        StoreAccessError: the file system refuses.
    """
    with _opened(runs) as fd:
        deadline = time.monotonic() + wait_s
        pause = threading.Event()
        while not _try(fd, runs, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                raise _stayed_shut(runs, wait_s)
            pause.wait(_POLL_S)
        yield


@contextmanager
def _opened(runs: str) -> Iterator[int]:
    try:
        if not os.path.isdir(runs):  # a copy of a datastore may lack what was empty
            os.makedirs(runs, 0o700, exist_ok=True)
        fd = os.open(runs, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise access_error(error, runs, "lock") from error
    try:
        yield fd
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # also for copies that forked children have
        os.close(fd)


def _try(fd: int, runs: str, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise access_error(error, runs, "lock") from error
    return True


def _stayed_shut(runs: str, wait_s: float) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"{runs} stayed locked for {wait_s:.0f} s",
        hint="a stopped `aflow gc` or a stopped run holds it; let it go on, or end it",
    )
