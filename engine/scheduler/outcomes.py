"""What became of a job: its worker's report, or a failure made from how its process ended. Pure.

A report stands however its process ended afterwards: a worker that reported and was then killed in
an exit handler has done its work, and all its blobs were written before it spoke.
"""

import signal

from engine.errors import (
    Failure,
    LimitExceededError,
    TaskCancelledError,
    TaskError,
    TaskFailedError,
    TaskLostError,
    TaskTimedOutError,
)
from engine.executors.base import Exit, ExitKind, JobEnded
from engine.stores.taskspec import Report

TAIL_LINES = 20
TAIL_LINE_CHARS = 1_000  # a failure is journaled, and one line of a progress bar can be megabytes

_SIGNALS = {
    signal.SIGSEGV: "segmentation fault",
    signal.SIGBUS: "bus error",
    signal.SIGABRT: "aborted",
    signal.SIGFPE: "floating point exception",
    signal.SIGILL: "illegal instruction",
    signal.SIGKILL: "killed (out of memory?)",
    signal.SIGTERM: "terminated",
    signal.SIGINT: "interrupted",
}
_SIGNAL_HINTS = {
    signal.SIGKILL: "if memory ran out, ask for more with @resources(memory=...) or hold less",
    signal.SIGSEGV: "a native library crashed; the task's stderr ends with the Python lines that "
    "called it",
}


def read_report(ended: JobEnded) -> Report:
    """Return what the worker reported, or how its process failed if it reported nothing."""
    if ended.outcome is None:
        return Report(failure=failure_of(ended.exit))
    try:
        report = Report.unpack(ended.outcome)
    except ValueError:
        return Report(failure=_failure(TaskLostError, "the worker's report cannot be read"))
    if not (report.manifest or report.manifest_digest or report.failure):
        return Report(failure=_failure(TaskLostError, "the worker's report is empty"))
    return report


def failure_of(exit: Exit) -> Failure:
    """Say in words how a process ended that reported nothing."""
    if exit.failure is not None:
        return exit.failure
    match exit.kind:
        case ExitKind.TIMED_OUT:
            message, hint = "ran longer than its @timeout and was killed", ""
            return _failure(TaskTimedOutError, message, hint, exit.detail)
        case ExitKind.CANCELLED:
            return _failure(TaskCancelledError, "cancelled", "", exit.detail)
        case ExitKind.SIGNAL:
            message, hint = _signal_in_words(exit.code)
        case ExitKind.LOST:
            message, hint = "the executor lost sight of the task's process", ""
        case ExitKind.CODE | ExitKind.RETURNED:
            message = f"the process exited with code {exit.code} before it reported a result"
            hint = "os._exit() ends a task without a result" if exit.kind is ExitKind.CODE else ""
    return _failure(TaskLostError, message, hint, exit.detail)


def refusal(objection: str, *, is_limit: bool) -> Failure:
    """The failure of an attempt whose result the flow cannot go on from.

    Args:
        objection: why it cannot.
        is_limit: whether it could, were a foreach allowed to be wider.
    """
    if not is_limit:
        return Failure(TaskFailedError.code, objection, retryable=False)
    hint = "--max-num-splits N lets it through, if it is meant"
    return Failure(LimitExceededError.code, objection, hint=hint, retryable=False)


def tail_line(text: str) -> str:
    """Cut a printed line to what a failure keeps of it."""
    return text if len(text) <= TAIL_LINE_CHARS else f"{text[:TAIL_LINE_CHARS]}..."


def _signal_in_words(number: int) -> tuple[str, str]:
    try:
        known = signal.Signals(number)
    except ValueError:
        return f"ended by signal {number}", ""
    words = _SIGNALS.get(known, "ended")
    return f"{words} by {known.name}", _SIGNAL_HINTS.get(known, "")


def _failure(cls: type[TaskError], message: str, hint: str = "", detail: str = "") -> Failure:
    whole = f"{message}: {detail}" if detail else message
    return Failure(code=cls.code, message=whole, hint=hint, retryable=cls.retryable)
