"""What the kernel does for us: groups, subreapers, death signals, orphans; and the report channel.

Runs in the zygote and its children; imports nothing that a forked child would pay for. On systems
other than Linux there are no subreapers and no /proc: there a task's process group is all that is
killed, and a daemon that left it can survive its task.
"""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, Self

from engine.executors import wire

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Bound here, in the zygote: a child that had to find the function would pay 0.2 ms for it.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def die_with_parent(signal_number: int) -> None:
    """Ask for a signal when the thread that forked this process dies. Linux only; else nothing."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies. Linux only; else nothing."""
    if _prctl is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def own_children() -> list[int]:
    """Process ids of this single-threaded process's children, adopted ones too; Linux only.

    Source: proc(5), /proc/pid/task/tid/children (CONFIG_PROC_CHILDREN). It is exact only while the
    children are frozen or dead; a reader has to look again after it has killed what it saw.
    """
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb", buffering=0) as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def kill_group(pid: int, signal_number: int) -> None:
    """Signal the process group that `pid` leads, and `pid` itself, which may not lead one yet.

    `pid` must be a child that is not reaped, so that its number cannot be another's by now.
    """
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal_number)
        except (ProcessLookupError, PermissionError):  # macOS forbids to signal a group of zombies
            continue
        if signal_number != signal.SIGKILL:
            return


class ReportChannel:
    """Where one job reports: a socket shared by all jobs of a zygote, tagged with the job's token.

    A copy of the process that user code forked cannot report in the job's name.
    """

    def __init__(self, channel: socket.socket, token: int) -> None:
        self._channel = channel
        self._token = token
        self._owner = os.getpid()

    def __call__(self, outcome: bytes) -> None:
        """Send the job's outcome, at most REPORT_MAX_BYTES.

        Raises:
            ValueError: the outcome is too large.
        """
        if len(outcome) > wire.REPORT_MAX_BYTES:
            raise ValueError(f"a report of {len(outcome)} bytes; {wire.REPORT_MAX_BYTES} is most")
        if os.getpid() != self._owner:
            os._exit(1)
        self._channel.send(wire.TOKEN.pack(self._token) + outcome)

    def to_argv(self) -> list[str]:
        """Words from which the program that replaces this one makes the same channel."""
        self._channel.set_inheritable(True)
        return [str(self._channel.fileno()), str(self._token)]

    @classmethod
    def from_argv(cls, words: Sequence[str]) -> Self:
        fd, token = words
        channel = socket.socket(fileno=int(fd))
        channel.set_inheritable(False)
        return cls(channel, int(token))


Target = Callable[[bytes, ReportChannel], int]
"""Runs one job in its own process: takes the spec, reports once, returns the exit code."""


def exec_target(argv: Sequence[str]) -> Target:
    """A target that becomes a fresh interpreter: `--isolation spawn`.

    The new program gets `argv`, the number of a descriptor at whose start the spec lies, and the
    words of the report channel.
    """

    def become(spec: bytes, report: ReportChannel) -> NoReturn:
        import tempfile  # noqa: PLC0415 (brings a dozen modules, to this isolation alone)

        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (lives on in the new program)
        file.write(spec)
        file.seek(0)
        file_fd = file.fileno()
        os.set_inheritable(file_fd, True)
        os.execv(argv[0], [*argv, str(file_fd), *report.to_argv()])

    return become
