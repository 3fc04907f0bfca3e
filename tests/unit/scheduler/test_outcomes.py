"""However a worker ends, its failure says so in words."""

import pytest

from engine.errors import Failure
from engine.executors.base import Exit, ExitKind, JobEnded
from engine.scheduler.outcomes import TAIL_LINE_CHARS, failure_of, read_report, tail_line
from engine.stores.taskspec import Report


def ended(outcome: bytes | None, exit: Exit | None = None) -> JobEnded:
    return JobEnded("job", exit or Exit(ExitKind.RETURNED), 1, 2, outcome)


@pytest.mark.parametrize(
    ("exit", "code", "words", "retryable"),
    [
        (Exit(ExitKind.SIGNAL, 11), "task-lost", "segmentation fault by SIGSEGV", True),
        (Exit(ExitKind.SIGNAL, 9), "task-lost", "killed (out of memory?) by SIGKILL", True),
        (Exit(ExitKind.SIGNAL, 10), "task-lost", "ended by SIGUSR1", True),
        (Exit(ExitKind.SIGNAL, 250), "task-lost", "ended by signal 250", True),
        (Exit(ExitKind.CODE, 3), "task-lost", "exited with code 3 before it reported", True),
        (Exit(ExitKind.RETURNED, 0), "task-lost", "exited with code 0 before it reported", True),
        (Exit(ExitKind.TIMED_OUT), "task-timeout", "ran longer than its @timeout", True),
        (Exit(ExitKind.CANCELLED, detail="ctrl-c"), "task-cancelled", "cancelled: ctrl-c", False),
        (Exit(ExitKind.LOST, detail="host gone"), "task-lost", "lost sight", True),
    ],
    ids=str,
)
def test_an_end_without_a_report_is_named(
    exit: Exit, code: str, words: str, retryable: bool
) -> None:
    failure = failure_of(exit)
    assert failure.code == code
    assert words in failure.message
    assert exit.detail in failure.message
    assert failure.retryable is retryable
    assert read_report(ended(None, exit)).failure == failure


def test_a_segmentation_fault_says_where_its_python_frames_are() -> None:
    hint = failure_of(Exit(ExitKind.SIGNAL, 11)).hint
    assert "stderr" in hint
    assert "faulthandler" not in hint, "it is always on"


def test_running_out_of_memory_comes_with_a_way_out() -> None:
    assert "@resources(memory=" in failure_of(Exit(ExitKind.SIGNAL, 9)).hint


def test_a_report_stands_however_its_process_ended_afterwards() -> None:
    report = Report(manifest=b"manifest")
    killed = Exit(ExitKind.SIGNAL, 9)
    assert read_report(ended(report.pack(), killed)) == report


def test_a_users_failure_is_passed_on_whole() -> None:
    report = Report(failure=Failure("task-failed", "boom", type="ValueError", traceback="..."))
    assert read_report(ended(report.pack())) == report


@pytest.mark.parametrize("noise", [b"", b"\xc1", b"\x93\x01", b"\x01", b"\x93\xc0\xc0\x01"])
def test_a_report_that_cannot_be_read_is_a_lost_task(noise: bytes) -> None:
    failure = read_report(ended(noise)).failure
    assert failure is not None
    assert (failure.code, failure.message) == ("task-lost", "the worker's report cannot be read")


@pytest.mark.parametrize("empty", [Report(), Report(manifest=b"")])
def test_a_report_of_nothing_is_a_lost_task(empty: Report) -> None:
    failure = read_report(ended(empty.pack())).failure
    assert failure is not None
    assert failure.message == "the worker's report is empty"


def test_a_line_of_any_length_is_cut_to_what_a_failure_keeps() -> None:
    assert tail_line("short") == "short"
    assert len(tail_line("x" * 10_000_000)) == TAIL_LINE_CHARS + 3
