"""The life of a forked task: what it sheds at birth, and how it ends.

A task must not see what the zygote or another task did (FAULTS R-04). Fork gives it its own
environment, directory, umask, modules and objects; the rest is here. Descriptors that the user's
module opened while it was imported stay open, as they would in any program: only the engine's are
closed.
"""

import atexit
import contextlib
import faulthandler
import io
import logging
import os
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Iterable
from typing import NoReturn

from engine.executors.process import ReportChannel, Target, adopt_orphans, die_with_parent

EXIT_BROKEN = 70
"""Exit code of a child that could not even begin, or whose target raised."""

# What a fresh Python has; the zygote changes some of these for itself.
_FRESH_HANDLERS = (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGCHLD, signal.SIG_DFL),
    (signal.SIGALRM, signal.SIG_DFL),
    (signal.SIGPIPE, signal.SIG_IGN),
)


def install_streams() -> None:
    """Make sys.stdout and sys.stderr line-buffered UTF-8 on descriptors 1 and 2.

    Done once in the zygote, which writes nothing: the children put their own pipes under the same
    descriptors and inherit empty buffers. Text that UTF-8 cannot hold is escaped, never an error.
    A crash of native code writes its Python traceback there, too.
    """
    faulthandler.enable(file=2)
    for name, fd in (("stdout", 1), ("stderr", 2)):
        raw = io.FileIO(fd, "w", closefd=False)
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw), "utf-8", errors="backslashreplace", line_buffering=True
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def run_child(
    target: Target, spec: bytes, report: ReportChannel, *, pipes: tuple[int, int], zygote: int
) -> NoReturn:
    """Become the task; never returns. `pipes` are the write ends of its stdout and stderr."""
    status = EXIT_BROKEN
    try:
        _be_born(pipes, zygote)
        status = target(spec, report)
    except BaseException:  # noqa: BLE001 (a target reports its errors; this one is the engine's)
        traceback.print_exc()
    finally:
        end(status)


def end(status: int) -> NoReturn:
    """Finish as Python does: join threads, run exit functions, flush; then leave without teardown.

    Tearing the interpreter down would write to every inherited page, so `os._exit` it is.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # joins non-daemon threads
        atexit._run_exitfuncs()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed by user code, or nobody reads any more
                stream.flush()
        os._exit(status)


def _be_born(pipes: tuple[int, int], zygote: int) -> None:
    os.setsid()
    die_with_parent(signal.SIGKILL)
    if os.getppid() != zygote:  # it died before the line above
        os._exit(EXIT_BROKEN)
    adopt_orphans()
    signal.set_wakeup_fd(-1)
    for number, handler in _FRESH_HANDLERS:
        signal.signal(number, handler)
    for pipe, fd in zip(pipes, (1, 2), strict=True):
        os.dup2(pipe, fd)
    close_fds(pipes)
    _forget_exit_functions()
    _reseed()


def close_fds(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _forget_exit_functions() -> None:
    """Drop what the zygote would do at its own exit; keep what every Python program does."""
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]  # e.g. its temporary files
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    atexit.register(logging.shutdown)
    if multiprocessing := sys.modules.get("multiprocessing.util"):
        multiprocessing._finalizer_registry.clear()
        multiprocessing._run_after_forkers()
        atexit.register(multiprocessing._exit_function)


def _reseed() -> None:
    """Give numpy's global generator fresh entropy; `random` does so itself at every fork."""
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()
