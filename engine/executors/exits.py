"""How a process ended by itself, and what is known about why."""

import os
import re
import signal
from pathlib import Path

from engine.executors.base import KERNEL_HAD_NO_MEMORY, Exit, ExitKind

_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def oom_kills() -> int:
    """How often this machine's kernel has killed a process for want of memory; 0 if not known."""
    try:
        found = _OOM_KILLS.search(Path("/proc/vmstat").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def describe(status: int, *, peak_kib: int, out_of_memory: bool = False) -> Exit:
    """The exit of a process that the executor did not kill and that did not report.

    Args:
        status: as `os.wait` gives it.
        peak_kib: the most memory it had resident, in KiB.
        out_of_memory: the kernel has lately killed a process for want of memory.
    """
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return Exit(ExitKind.CODE, code)
    detail = ""
    if -code == signal.SIGKILL:
        who = KERNEL_HAD_NO_MEMORY if out_of_memory else "not by aflow"
        detail = f"{who}; the process held {_size(peak_kib)} at its peak"
    return Exit(ExitKind.SIGNAL, -code, detail)


def _size(kib: int) -> str:
    return f"{kib / 1024**2:.1f} GiB" if kib >= 1024**2 else f"{kib / 1024:.0f} MiB"
