"""A crash point kills at its passage and at no other, counted over a process and its forks."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from engine.config import arm_crash_point
from engine.crashpoints import PASSAGES_MAX, POINTS, CrashPoint
from engine.errors import ConfigError
from tests.faults.crashes import ROOT


@pytest.fixture
def point() -> Iterator[CrashPoint]:
    point = CrashPoint("a.point")
    yield point
    point.disarm()


def test_a_point_is_due_at_its_passage_only(point: CrashPoint) -> None:
    point.arm(3)
    assert [point.is_due() for _ in range(6)] == [False, False, True, False, False, False]


def test_a_point_that_is_not_armed_is_never_due(point: CrashPoint) -> None:
    assert not point.is_due()
    point.passed()


def test_forked_processes_count_together(point: CrashPoint) -> None:
    point.arm(3)
    statuses = []
    for _ in range(5):
        if (pid := os.fork()) == 0:
            point.passed()
            os._exit(0)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    assert statuses == [0, 0, -signal.SIGKILL, 0, 0]


@pytest.mark.parametrize("passage", [0, -1, PASSAGES_MAX + 1])
def test_what_is_no_passage_is_refused(point: CrashPoint, passage: int) -> None:
    with pytest.raises(ValueError, match="a passage is 1 to"):
        point.arm(passage)


def test_the_last_passage_that_can_be_named_fits(point: CrashPoint) -> None:
    point.arm(PASSAGES_MAX)
    assert not point.is_due()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("journal.befor-append:1", "unknown key 'journal.befor-append'"),
        ("journal.before-append", "is not NAME:N"),
        ("journal.before-append:0", "is not NAME:N"),
        ("journal.before-append:x", "is not NAME:N"),
    ],
)
def test_a_slip_in_the_variable_is_told(value: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        arm_crash_point({"AFLOW_CRASH_AT": value})


def test_without_the_variable_nothing_is_armed() -> None:
    arm_crash_point({})
    assert not any(point._passages >= 0 for point in POINTS.values())


def test_the_variable_arms_the_command_line() -> None:
    code = "from engine.cli.main import invoke; import engine.crashpoints as c; "
    code += "invoke(['--version']); c.RUN_AFTER_DONE.passed(); print('alive')"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "AFLOW_CRASH_AT": "run.after-done:1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert "alive" not in done.stdout
