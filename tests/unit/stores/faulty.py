"""File system faults for the store tests: a full disk, and a refusal of the n-th call."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WRITING = ("open", "write", "pwrite", "rename", "link", "mkdir", "fsync", "fdatasync", "fstat")


class FaultyCalls:
    """Lets `allowed` calls of `names` in `os` through, and refuses those after them.

    `refused` tells whether any was. Calls that undo (unlink, close, ftruncate) always work, as they
    do on a full disk.
    """

    def __init__(self, allowed: int, error: int, names: tuple[str, ...] = WRITING) -> None:
        self.refused = False
        self._left = allowed
        self._error = error
        self._names = names

    @contextmanager
    def active(self) -> Iterator["FaultyCalls"]:
        originals = {name: getattr(os, name) for name in self._names}
        for name, original in originals.items():
            setattr(os, name, self._counted(original))
        try:
            yield self
        finally:
            for name, original in originals.items():
                setattr(os, name, original)

    def _counted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._left <= 0:
                self.refused = True
                raise OSError(self._error, os.strerror(self._error))
            self._left -= 1
            return original(*args, **kwargs)

        return call


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own with so much room: a tmpfs, or a shim where none can be mounted."""
    folder.mkdir()
    options = f"size={size_bytes},mode=700"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if (
        os.geteuid() == 0
        and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    ):
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    with _quota(folder, size_bytes):
        yield folder


@contextmanager
def _quota(folder: Path, size_bytes: int) -> Iterator[None]:
    """The shim for a machine where nothing can be mounted: counts what `folder` holds."""
    originals = {"write": os.write, "pwrite": os.pwrite}

    def counted(original: Callable[..., int]) -> Callable[..., int]:
        def write(fd: int, data: Any, *rest: int) -> int:
            if Path(os.readlink(f"/proc/self/fd/{fd}")).is_relative_to(folder):
                used = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
                data = memoryview(data)[: max(size_bytes - used, 0)]
                if not data:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(fd, data, *rest)

        return write

    try:
        for name, original in originals.items():
            setattr(os, name, counted(original))
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)
