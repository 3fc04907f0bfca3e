"""What Batch says of a job that ended, as a named failure."""

import pytest

from engine.executors.base import Exit, ExitKind
from engine.executors.batch_reasons import exit_of, gone, told_by_container
from engine.executors.batch_states import FAILED, SUCCEEDED, Seen, read_job

ESSENTIAL = "Essential container in task exited"


@pytest.mark.parametrize(
    ("status_reason", "container_reason", "code", "expected", "retryable"),
    [
        ("Host EC2 (instance i-0abc) terminated.", "", None, "host-lost", True),
        (ESSENTIAL, "OutOfMemoryError: Container killed due to memory usage", 137,
         "out-of-memory", True),
        (ESSENTIAL, "", 137, "out-of-memory", True),
        ("Job attempt duration exceeded timeout", "", 143, "task-timeout", True),
        ("Task failed to start", "CannotPullContainerError: pull access denied for x", None,
         "image-denied", False),
        ("Task failed to start", "CannotPullContainerError: manifest unknown", None,
         "image", False),
        ("Task failed to start", "CannotPullContainerError: i/o timeout", None,
         "image-pull", True),
        ("Task failed to start", "CannotStartContainerError: exec: python3 not found", None,
         "container-start", True),
        ("Task failed to start", "CannotInspectContainerError: no answer", None,
         "container-inspect", True),
        ("ResourceInitializationError: unable to pull secrets", "", None, "job-secrets", True),
        ("The job's role cannot be assumed", "", None, "job-role", False),
        ("MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - too large", "", None,
         "job-unplaceable", False),
        ("Dependent Job failed", "", None, "dependency-failed", True),
        (ESSENTIAL, "", 90, "image-python", False),
        (ESSENTIAL, "", 91, "runtime-fetch", True),
        (ESSENTIAL, "", 92, "runtime-denied", False),
        (ESSENTIAL, "", 127, "image-python", False),
        ("something new", "", None, "task-lost", True),
    ],
)  # fmt: skip
def test_every_way_to_fail_has_a_name(
    status_reason: str, container_reason: str, code: int | None, expected: str, retryable: bool
) -> None:
    seen = Seen("j", FAILED, status_reason, container_reason, code)
    failure = exit_of(seen).failure
    assert failure is not None
    assert (failure.code, failure.retryable) == (expected, retryable)
    assert failure.hint or expected in ("dependency-failed", "task-lost")


def test_an_exit_code_of_the_users_is_told_as_it_is() -> None:
    assert exit_of(Seen("j", FAILED, ESSENTIAL, "", 3)) == Exit(ExitKind.CODE, 3, ESSENTIAL)
    assert exit_of(Seen("j", FAILED, ESSENTIAL, "", 139)).kind is ExitKind.SIGNAL


def test_what_we_ended_was_cancelled_whatever_batch_says() -> None:
    seen = Seen("j", FAILED, "not needed", "", 143)
    assert exit_of(seen, cancelled="by the user") == Exit(ExitKind.CANCELLED, detail="by the user")


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (Seen("j#1", FAILED, "Host EC2 (instance i-0abc) terminated."), "host-lost"),
        (Seen("j#1", FAILED, "a-0 failed", "OutOfMemoryError: killed", 137), "out-of-memory"),
    ],
)
def test_a_node_that_died_before_its_gang_was_ended_says_of_what(seen: Seen, code: str) -> None:
    failure = exit_of(seen, cancelled="a-0 failed", in_gang=True).failure
    assert failure is not None
    assert failure.code == code
    assert exit_of(seen, cancelled="by the user").kind is ExitKind.CANCELLED


def test_a_node_that_was_ended_with_its_gang_was_cancelled_if_by_us() -> None:
    for code in (143, None):
        seen = Seen("j#1", FAILED, "a-0 failed", "", code)
        ended = exit_of(seen, cancelled="a-0 failed", in_gang=True)
        assert ended == Exit(ExitKind.CANCELLED, detail="a-0 failed")


def test_a_node_that_batch_has_ended_is_known_as_one_and_may_be_tried_again() -> None:
    ended = exit_of(Seen("j#1", FAILED, ESSENTIAL, "", 143), in_gang=True)
    assert ended.failure is not None
    assert (ended.failure.code, ended.failure.retryable) == ("node-ended", True)
    assert exit_of(Seen("j", FAILED, ESSENTIAL, "", 143)).failure is None


def test_success_without_a_result_is_none() -> None:
    for exit in (exit_of(Seen("j", SUCCEEDED)), gone()):
        assert exit.failure is not None
        assert exit.failure.code == "task-lost"


def test_a_process_that_the_kernel_killed_for_memory_is_told_from_another() -> None:
    short = Exit(ExitKind.SIGNAL, 9, "the kernel ran out of memory; it held 2 GiB at its peak")
    other = Exit(ExitKind.SIGNAL, 9, "not by aflow; it held 2 GiB at its peak")
    told = told_by_container(short).failure
    assert told is not None
    assert told.code == "out-of-memory"
    assert told_by_container(other) == other


def test_the_last_attempt_tells_what_the_container_does_not() -> None:
    wire = {
        "jobId": "j",
        "status": "FAILED",
        "startedAt": 1000,
        "stoppedAt": 2000,
        "statusReason": ESSENTIAL,
        "attempts": [{"container": {"exitCode": 1}}, {"container": {"exitCode": 137}}],
    }
    seen = read_job(wire)
    assert (seen.exit_code, seen.attempt) == (137, 2)
    assert (seen.started_us, seen.stopped_us) == (1_000_000, 2_000_000)
