"""A zygote as its owner holds it, and the two ways to make one.

Forked from a single-threaded process that has loaded the user's module, it costs one fork and the
module is imported once in all. Spawned, it is a fresh interpreter that loads the flow itself: for
hosts that have threads or a running loop, which a fork would break. Imports no asyncio: the forking
process must not have to.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from msgspec import Struct

from engine.errors import EngineError, ExecutorError
from engine.executors import wire

if TYPE_CHECKING:
    from engine.executors.process import Target

# Linux keeps message borders and order on a reliable channel; macOS has only datagrams.
_CHANNEL_TYPE = getattr(socket, "SOCK_SEQPACKET", socket.SOCK_DGRAM)


class Zygote(Struct):
    """One fork server: its control socket, the channel of its tasks' reports, its process id.

    `boot` are bytes still to be sent before anything else. Both sockets are non-blocking.
    """

    control: socket.socket
    reports: socket.socket
    pid: int
    boot: bytes = b""

    def close(self) -> None:
        """Tell the zygote to kill its tasks and exit; does not wait."""
        self.control.close()
        self.reports.close()

    def is_gone(self) -> bool:
        """Reap the zygote if it has exited."""
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
        except ChildProcessError:  # somebody else in this program waits for any child
            return True

    def kill(self, *, timeout_s: float = 10.0) -> None:
        """Close, wait, and kill the zygote itself if it does not exit. Blocks."""
        self.close()
        deadline = time.monotonic() + timeout_s
        while not self.is_gone():
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.001)  # noqa: TID251 (for callers without a loop)


def fork_zygote(load: "Callable[[], Target]", warm_up: Callable[[], None] | None = None) -> Zygote:
    """Fork a zygote from this process as it is now.

    Args:
        load: runs once in the zygote, and gives what runs in each task's process. What it imports,
            this process need not: it can go on meanwhile.
        warm_up: runs once in the zygote, when it is clear that many tasks come.

    Raises:
        ExecutorError: this process has other threads, whose locks a fork would leave locked.
    """
    if threading.active_count() > 1:
        names = ", ".join(sorted(t.name for t in threading.enumerate()))
        raise ExecutorError(
            f"cannot fork a zygote: this process runs threads ({names})",
            hint="use `--isolation spawn`, or start threads inside of steps only",
        )
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as in a program without a terminal
            stream.flush()
    control, its_control, reports, its_reports = _sockets()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            control.close()
            reports.close()
            _serve(its_control, its_reports, load, warm_up)
        finally:
            os._exit(1)
    its_control.close()
    its_reports.close()
    return Zygote(control, reports, pid)


def spawn_zygote(argv: Sequence[str], boot: bytes) -> Zygote:
    """Start `argv` with two more words, the descriptors of its sockets; it has to `serve`.

    `boot` is for the new program to make its target of. What it prints goes to our stderr.
    """
    control, its_control, reports, its_reports = _sockets()
    fds = (its_control.fileno(), its_reports.fileno())
    try:
        program = subprocess.Popen(
            [*argv, *map(str, fds)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=_standard_error(),
            start_new_session=True,
        )
    finally:
        its_control.close()
        its_reports.close()
    pid, program.returncode = program.pid, 0  # reaped by Zygote, so Popen must not warn or wait
    return Zygote(control, reports, pid, wire.encode(wire.Kind.BOOT, payload=boot))


def _serve(
    control: socket.socket,
    reports: socket.socket,
    load: "Callable[[], Target]",
    warm_up: Callable[[], None] | None,
) -> NoReturn:
    # Imported by the zygote alone, while its parent imports what drives a run.
    from engine.executors.forkserver import ForkServer  # noqa: PLC0415

    server = ForkServer(control, reports)
    try:
        target = load()
    except Exception as error:  # noqa: BLE001 (nobody else could tell of it)
        told = error.message if isinstance(error, EngineError) else repr(error)
        server.fail_boot(f"the fork server cannot start: {told}")
        os._exit(1)
    if warm_up is None:
        server.serve(target)
    server.serve(target, warm_up)


def _sockets() -> tuple[socket.socket, socket.socket, socket.socket, socket.socket]:
    control, its_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    reports, its_reports = socket.socketpair(socket.AF_UNIX, _CHANNEL_TYPE)
    control.setblocking(False)
    reports.setblocking(False)
    if sys.platform == "linux":
        reports.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # see wire.sender
    return control, its_control, reports, its_reports


def _standard_error() -> int:
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2
