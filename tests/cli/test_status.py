"""`aflow status`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.flow.graph import Transition
from tests.cli.conftest import Call
from tests.unit.client.stored import (
    START,
    Stored,
    failed,
    succeeded,
    work,
)


def test_a_failed_run_tells_its_steps_and_its_first_failure(aflow: Call, datastore: Path) -> None:
    failed(datastore, "R1", tags=("a", "b"), origin_run_id="R0")

    done = aflow("status", "R1")

    assert done.code == 0
    assert done.out == (
        "Fan/R1  failed in 3.0 s\n"
        "  began 2026-07-25 17:20:00 by ada on here\n"
        "  resumed R0\n"
        "  tags: a, b\n"
        "\n"
        "STEP   DONE  RUNNING  FAILED  REUSED  TASK TIME  SLOWEST\n"
        "start  1                              1.0 s      1.0 s\n"
        "work   1              1               1.5 s      1.0 s\n"
        "\n"
        "failed first: work/1\n"
        "error[task-failed]: ValueError: no such luck\n"
        "  flow.py:12  raise ValueError('no such luck')\n"
        "  | one\n"
        "  | two\n"
        "  run:  Fan/R1   resume: aflow resume R1\n"
    )


def test_an_interrupted_run_says_how_to_resume_it(aflow: Call, datastore: Path) -> None:
    run = Stored(datastore, "R1")
    run.launch(START)
    run.end("interrupted", reason="SIGTERM")
    run.die()

    done = aflow("status", "R1", "--exit-code")

    assert done.code == 143
    assert "reason: SIGTERM" in done.out
    assert done.lines[-1] == "resume with: aflow resume R1"


def test_a_run_under_way_shows_what_runs(aflow: Call, datastore: Path, now: None) -> None:
    run = Stored(datastore, "R1")
    run.succeed(START, {}, goes=Transition(("work",), 2), reused=True)
    run.launch(work(0, 2))

    done = aflow("status")
    as_json = json.loads(aflow("status", "--json").out)
    run.die()

    assert done.lines[0] == "Fan/R1  running in 1 h 0 min"
    assert done.lines[4:] == [
        "start  1                      1       0 ms       0 ms",
        "work   0     1                        0 ms       0 ms",
    ]
    assert (as_json["status"], as_json["exit_code"]) == ("running", None)


@pytest.mark.parametrize(
    ("make", "code"), [(succeeded, 0), (failed, 1)], ids=["succeeded", "failed"]
)
def test_status_can_end_with_the_exit_code_of_the_run(
    aflow: Call, datastore: Path, make: Callable[..., str], code: int
) -> None:
    make(datastore, "R1")

    assert aflow("status", "R1", "--exit-code").code == code
    told = json.loads(aflow("status", "R1", "--json").out)
    assert told["exit_code"] == code
    assert told["failed_task"] == ("work/1" if code else None)
