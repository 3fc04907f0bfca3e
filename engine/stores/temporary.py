"""Files in the making: written under a name of their own, then renamed to their lasting one.

A file is locked (flock) while it is written, and the kernel drops the lock when its writer dies. So
what nobody locks is rubbish that a killed process left, whatever host or container it ran in, and
`sweep` takes it away at once.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from engine import crashpoints

_OPEN_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_OLD = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC  # NFS locks for writers only


@contextmanager
def new_file(folder: str) -> Iterator[tuple[int, str]]:
    """Open a file of a fresh name in `folder`, mode 0600; the name is gone afterwards."""
    fd, path = _locked_new(folder)
    try:
        crashpoints.BLOB_BEFORE_WRITE.passed()
        yield fd, path
    finally:
        with suppress(FileNotFoundError):  # renamed, which is the good end
            os.unlink(path)
        os.close(fd)


def sweep(folder: str) -> int:
    """Remove what killed writers left in `folder`; return how many files that were.

    What cannot be removed, another user's for one, is left: it is in nobody's way.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return 0
    return sum(_sweep_file(os.path.join(folder, name)) for name in names)


def _locked_new(folder: str) -> tuple[int, str]:
    while True:
        path = os.path.join(folder, f"{os.getpid()}-{os.urandom(8).hex()}")
        fd = os.open(path, _OPEN_NEW, 0o600)
        try:
            if _lock(fd) and os.fstat(fd).st_nlink:
                return fd, path
        except BaseException:
            os.close(fd)
            with suppress(FileNotFoundError):
                os.unlink(path)
            raise
        os.close(fd)  # a sweep came between: it has the file, or has removed it


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks, where nothing is swept either
    return True


def _sweep_file(path: str) -> bool:
    try:
        fd = os.open(path, _OPEN_OLD)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)  # not there if its writer has just renamed it: then it is no rubbish
        finally:
            os.close(fd)
    except OSError:
        return False
    return True
