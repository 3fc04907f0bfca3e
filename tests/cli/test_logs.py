"""`aflow logs`."""

import json
import threading
from pathlib import Path

import pytest

from engine.cli.logs import POLL_S
from tests.cli.conftest import Call
from tests.unit.client.stored import (
    END,
    START,
    Stored,
    failed,
    succeeded,
)


def test_logs_begin_with_the_task(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1")

    done = aflow("logs", "R1")

    assert done.lines == [
        "[work/0] working on 0",
        "[work/1] working on 1",
        "[work/2] working on 2",
        "[join/0] careful",
        "[end/0] done",
        "[end/0] bye",
    ]


@pytest.mark.parametrize(
    ("args", "texts"),
    [
        (["R1/work"], ["working on 0", "working on 1", "working on 2"]),
        (["R1/work/1"], ["working on 1"]),
        (["Fan/R1/end"], ["done", "bye"]),
        (["R1", "--step", "join", "--step", "end"], ["careful", "done", "bye"]),
        (["R1", "--task", "work/2", "--task", "end/0"], ["working on 2", "done", "bye"]),
        (["R1", "--stream", "err"], ["careful"]),
        (["R1", "--stderr"], ["careful"]),
        (["R1/end", "--stdout"], ["done", "bye"]),
        (["R1/end", "--stdout", "--stderr"], ["done", "bye"]),
        (["R1/end", "--both"], ["done", "bye"]),
        (["R1", "--grep", "^b|ful$"], ["careful", "bye"]),
        (["R1", "--tail", "2"], ["done", "bye"]),
        (["R1", "-n", "1", "--grep", "working"], ["working on 2"]),
        (["R1", "--since", "2026-07-25T17:20:06Z"], ["bye"]),
        (["R1", "--until", "2026-07-25T17:20:02Z"], ["working on 0"]),
        (["R1", "--attempt", "1"], []),
        (["R1", "--failed"], []),
        (["-1/end"], ["done", "bye"]),
    ],
)
def test_lines_are_chosen(aflow: Call, datastore: Path, args: list[str], texts: list[str]) -> None:
    succeeded(datastore, "R1")

    done = aflow("logs", "--no-log-prefix", *args)

    assert (done.code, done.err) == (0, "")
    assert done.lines == texts


def test_logs_of_failed_tasks_hold_every_attempt(aflow: Call, datastore: Path) -> None:
    failed(datastore, "R1")

    assert aflow("logs", "R1", "--failed").lines == ["[work/1] first try", "[work/1] second try"]
    assert aflow("logs", "R1", "--failed", "--task", "work/0").lines == []
    assert aflow("logs", "R1", "--failed", "--attempt", "1").lines == ["[work/1] second try"]


def test_lines_carry_their_times_when_asked(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1")

    assert aflow("logs", "R1/end", "-t").lines == [
        "2026-07-25 17:20:05.000 [end/0] done",
        "2026-07-25 17:20:06.000 [end/0] bye",
    ]


def test_lines_in_json_are_raw_and_escaped_by_json(aflow: Call, datastore: Path) -> None:
    run = Stored(datastore, "R1")
    run.launch(START)
    run.say(START, "stderr", "\x1b[2Jgone")
    run.die()

    assert json.loads(aflow("logs", "R1", "--json").out) == {
        "schema": "aflow/log/1",
        "at": "2026-07-25T17:20:00.000Z",
        "step": "start",
        "task_id": "0",
        "attempt": 0,
        "stream": "stderr",
        "text": "\x1b[2Jgone",
    }


def test_s08_nothing_a_task_printed_can_drive_the_terminal(aflow: Call, datastore: Path) -> None:
    run = Stored(datastore, "R1")
    run.launch(START)
    run.say(
        START, "stdout", "\x1b]0;owned\x07a\x1b[2J", "x\r[end/0] fake", "\x1b[31mred", "b\u202ec"
    )
    run.die()

    plain = aflow("logs", "R1").lines
    color = aflow("logs", "R1", "--color", "always").lines

    assert plain == [
        "[start/0] a",
        "[start/0] [end/0] fake",
        "[start/0] red",
        "[start/0] b\\u202ec",
    ]
    assert color[2].endswith("\x1b[0m \x1b[31mred\x1b[0m")


@pytest.mark.parametrize(
    ("args", "code", "problem"),
    [
        (["R1/nope"], 5, "there is no step 'nope' that has begun"),
        (["R1", "--step", "nope"], 5, "hint: it has start, work, join, end"),
        (["R1", "--task", "work/9"], 5, "there is no task 'work/9'"),
        (["R1", "--task", "work"], 5, "a task is STEP/TASK"),
        (["R1/end/0/total"], 2, "an artifact has no log"),
        (["R1", "--grep", "("], 2, "is no regular expression"),
        (["R1", "--stream", "in"], 2, "'in' is not one of 'out', 'err'"),
        (["R1", "-f", "--failed"], 2, "--failed looks back, and --follow ahead"),
    ],
)
def test_a_log_that_is_not_there_is_an_error(
    aflow: Call, datastore: Path, args: list[str], code: int, problem: str
) -> None:
    succeeded(datastore, "R1")

    done = aflow("logs", *args)

    assert done.code == code
    assert problem in done.err


def test_following_ends_with_the_run_and_its_exit_code(aflow: Call, datastore: Path) -> None:
    failed(datastore, "R1")

    done = aflow("logs", "-f", "R1", "--tail", "1")

    assert done.code == 1
    assert done.lines == ["[work/1] second try"]


def test_following_shows_what_is_printed_meanwhile(aflow: Call, datastore: Path) -> None:
    run = Stored(datastore, "R1")
    run.launch(END)
    run.say(END, "stdout", "early")

    def later() -> None:
        run.say(END, "stdout", "late")
        run.end("succeeded")
        run.die()

    timer = threading.Timer(3 * POLL_S, later)
    timer.start()
    done = aflow("logs", "--follow", "R1")
    timer.join()

    assert (done.code, done.lines) == (0, ["[end/0] early", "[end/0] late"])
