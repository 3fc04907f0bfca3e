"""How a process ended, in words. Pure, but for the kernel's count of out-of-memory kills."""

import os
import re
import signal
from pathlib import Path

from engine.executors.base import Exit, ExitKind

_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
_MEANING: dict[int, str] = {
    signal.SIGSEGV: "segmentation fault: native code read or wrote memory that is not its own",
    signal.SIGBUS: "bus error: a mapped file shrank, or shared memory ran out",
    signal.SIGABRT: "aborted: native code found itself in a state that must not be",
    signal.SIGILL: "illegal instruction: native code built for another processor",
    signal.SIGFPE: "arithmetic error in native code",
    signal.SIGXCPU: "the limit on CPU time",
}


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
        peak_kib: the most memory it had resident.
        out_of_memory: the kernel has lately killed processes for want of memory.
    """
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return Exit(ExitKind.CODE, code, f"the process exited with code {code} by itself")
    number = -code
    name = _signal_name(number)
    meaning = _MEANING.get(number, "")
    if number == signal.SIGKILL:
        peak = f"at its peak it held {_size(peak_kib)}"
        if out_of_memory:
            meaning = f"out of memory; {peak}"
        else:
            meaning = f"by somebody outside of aflow; {peak}"
    return Exit(ExitKind.SIGNAL, number, f"killed by {name}" + (f" ({meaning})" if meaning else ""))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _size(kib: int) -> str:
    return f"{kib / 1024**2:.1f} GiB" if kib >= 1024**2 else f"{kib / 1024:.0f} MiB"
