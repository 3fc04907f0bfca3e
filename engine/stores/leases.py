"""The lease of a run: one process drives it, and others can tell that it is alive.

A lease is a lock (flock) on a file that names its holder in JSON: {"host", "pid", "since"}. The
kernel drops the lock when the holder dies, however it dies. Only a process that the holder forked
could keep it; a lock whose holder is a dead process of this host is therefore taken over.

Whoever looks at the lock holds a lock on the directory meanwhile, so that a reader that only asks
is never mistaken for a holder.
"""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Self

from msgspec import Struct
from msgspec.structs import asdict

from engine import crashpoints
from engine.errors import RunHeldError
from engine.stores.access import access_error

_HOLDER_MAX_BYTES = 4096
_LOOK_S = 1.0


class Holder(Struct, frozen=True):
    """`since` is ISO 8601, UTC."""

    host: str
    pid: int
    since: str


class Lease:
    """A held lease. It ends with `release`, with its block, or with the process."""

    def __init__(self, path: str, fd: int, holder: Holder) -> None:
        self.path = path
        self.holder = holder
        self._fd = fd

    @classmethod
    def acquire(cls, path: str, *, run: str, since_us: int) -> Self:
        """Take the lease.

        Args:
            path: the lock's file; its directory is there.
            run: the run's pathspec, for the error.
            since_us: now, in microseconds since 1970.

        Raises:
            RunHeldError: a living process holds it.
            StoreAccessError: the file system refuses.
        """
        since = datetime.fromtimestamp(since_us / 1e6, UTC).isoformat(timespec="seconds")
        holder = Holder(socket.gethostname(), os.getpid(), since)
        crashpoints.LEASE_BEFORE_LOCK.passed()
        try:
            with _looking(path, fcntl.LOCK_EX):
                fd = _take(path, run)
                crashpoints.LEASE_BEFORE_HOLDER.passed()
                try:
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, json.dumps(asdict(holder)).encode(), 0)
                except BaseException:
                    os.close(fd)
                    raise
        except OSError as error:
            raise access_error(error, path, "lock") from error
        crashpoints.LEASE_AFTER_HOLDER.passed()
        return cls(path, fd, holder)

    @property
    def is_held(self) -> bool:
        return self._fd >= 0

    def release(self) -> None:
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)  # also for copies that forked children have
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def holder_of(path: str) -> Holder | None:
    """Who holds the lease now; None when nobody alive does, or there is no such file.

    Raises:
        StoreAccessError: the file system refuses.
    """
    try:
        with _looking(path, fcntl.LOCK_SH):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                return None if _try_lock(fd, fcntl.LOCK_SH) else _living(fd)
            finally:
                os.close(fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise access_error(error, path, "read") from error


def _take(path: str, run: str) -> int:
    """Open and lock the file; replace it if its holder is dead."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    if _try_lock(fd, fcntl.LOCK_EX):
        return fd
    try:
        if holder := _living(fd):
            raise RunHeldError(run, host=holder.host, pid=holder.pid, since=holder.since)
    finally:
        os.close(fd)
    os.unlink(path)
    fd = os.open(path, flags | os.O_EXCL, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def _living(fd: int) -> Holder | None:
    """The holder of a locked file, unless it is a process of this host that is gone."""
    try:
        holder = Holder(**json.loads(os.pread(fd, _HOLDER_MAX_BYTES, 0)))
    except (ValueError, TypeError):
        return Holder("an unknown host", 0, "an unknown time")
    return None if is_gone(holder) else holder


def is_gone(holder: Holder) -> bool:
    """Whether it is a process of this host that is no more; of other hosts this cannot be told."""
    return holder.host == socket.gethostname() and not _is_process(holder.pid)


def _is_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _looking(path: str, kind: int) -> Iterator[None]:
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Others look for 20 us. A blocking flock would bind an event loop to a stopped process.
        deadline = time.monotonic() + _LOOK_S
        while not _try_lock(fd, kind):
            if time.monotonic() > deadline:
                raise BlockingIOError(errno.EAGAIN, "another process is looking at it and hangs")
            os.sched_yield()
        yield
    finally:
        os.close(fd)
