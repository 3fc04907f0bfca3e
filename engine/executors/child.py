"""The life of a forked task: what its zygote sheds for it, what it does at birth, how it ends.

A task must not see what the zygote or another task did (FAULTS R-04). Fork gives it its own
environment, directory, umask, modules and objects; the rest is here. Descriptors that the user's
module opened while it was imported stay open, as they would in any program: only the engine's are
closed.

Almost all that a task costs are pages that it is the first to write to, 2 to 4 us each, and calling
a Python function writes to several. So what can be done once, in the zygote, is; and what is left
goes by the C functions below Python's wrappers.
"""

import _signal  # type: ignore[import-not-found]  # no stub; it is what `signal` wraps
import _thread
import atexit
import faulthandler
import io
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

_HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGCHLD, _SIGKILL = int(signal.SIGCHLD), int(signal.SIGKILL)
_SIG_DFL, _SIG_SETMASK = int(signal.SIG_DFL), int(signal.SIG_SETMASK)


def prepare(wakeup: int) -> None:
    """Make this process the zygote that its tasks are to inherit from.

    Args:
        wakeup: descriptor that gets a byte when a child has ended.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as in any Python program
    # The executor decides when tasks end: what a terminal or a service manager sends is held back.
    # Held, not ignored, so that tasks find the handlers of a fresh Python.
    signal.pthread_sigmask(signal.SIG_SETMASK, _HELD)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    install_streams()
    _forget_exit_functions()


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


def _forget_exit_functions() -> None:
    """Leave to the tasks what every Python program does at its end, and nothing of the zygote's.

    The zygote itself runs none: it ends by `os._exit`.
    """
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]  # e.g. temporary directories
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    if logging := sys.modules.get("logging"):
        atexit.register(logging.shutdown)
    if multiprocessing := sys.modules.get("multiprocessing.util"):
        multiprocessing._finalizer_registry.clear()
        atexit.register(multiprocessing._exit_function)


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


def _be_born(pipes: tuple[int, int], zygote: int) -> None:
    os.setsid()
    die_with_parent(_SIGKILL)
    if os.getppid() != zygote:  # it died before the line above
        os._exit(EXIT_BROKEN)
    adopt_orphans()
    _signal.set_wakeup_fd(-1)
    _signal.signal(_SIGCHLD, _SIG_DFL)
    _signal.pthread_sigmask(_SIG_SETMASK, ())
    stdout, stderr = pipes
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    if multiprocessing := sys.modules.get("multiprocessing.util"):
        multiprocessing._run_after_forkers()
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()  # `random` does so itself at every fork


def end(status: int) -> NoReturn:
    """Finish as Python does: join threads, run exit functions, flush; then leave without teardown.

    Tearing the interpreter down would write to every inherited page, so `os._exit` it is.
    """
    try:
        if _thread._count():  # else there is none to join
            threading._shutdown()  # type: ignore[attr-defined]  # joins non-daemon threads
        atexit._run_exitfuncs()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # noqa: BLE001 (closed by user code, or nobody reads any more)
                continue
        os._exit(status)


def close_fds(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
