"""What is shown of a run, from its events."""

import asyncio
import io
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from msgspec import structs

from engine.cli.console import Console, Look, Sink, summary_lines
from engine.cli.live import LiveConsole, draw
from engine.cli.ndjson import JsonConsole
from engine.cli.progress import Tally
from engine.errors import Failure
from engine.flow.graph import Transition
from engine.ids import TaskKey
from engine.scheduler.events import ResultRef
from engine.scheduler.progress import (
    RunBegan,
    RunDone,
    RunEvent,
    TaskAttemptFailed,
    TaskDone,
    TaskLaunched,
    TaskOutput,
)
from tests.unit.client.stored import END, FAILURE, GRAPH, JOIN, START, work

BEGAN_US = 1_785_000_000_000_000
CANCELLED = Failure(code="task-cancelled", message="cancelled: enough")


def at(seconds: float) -> int:
    return BEGAN_US + int(seconds * 1_000_000)


def began(origin: str | None = None) -> RunBegan:
    return RunBegan("Fan", "R1", at(0), origin)


def launched(key: TaskKey, attempt: int = 0, s: float = 1) -> TaskLaunched:
    return TaskLaunched(key, attempt, at(s))


def done(
    key: TaskKey,
    *targets: str,
    fanout: int | None = None,
    s: float = 2,
    took_s: float = 1,
    reused: bool = False,
    caught: bool = False,
) -> TaskDone:
    transition = Transition(targets, fanout)
    return TaskDone(
        task=key,
        attempt=0,
        started_us=at(s - took_s),
        ended_us=at(s),
        transition=transition,
        result=ResultRef(10),
        result_size=10,
        reused=reused,
        caught=caught,
    )


def failed(
    key: TaskKey, *, retry_in_s: float | None = None, s: float = 2, failure: Failure = FAILURE
) -> TaskAttemptFailed:
    return TaskAttemptFailed(key, 0, at(s - 1), at(s), failure, retry_in_s)


def printed(key: TaskKey, stream: str, *lines: str) -> TaskOutput:
    return TaskOutput(key, 0, stream, tuple((at(1), line) for line in lines))


def ended(status: str, s: float = 4, **more: object) -> RunDone:
    return RunDone(status, at(s), **more)  # type: ignore[arg-type]  # by name


WELL = [
    began(),
    launched(START),
    done(START, "work", fanout=2),
    launched(work(0, 2), s=2),
    launched(work(1, 2), s=2),
    printed(work(0, 2), "stdout", "a", "b"),
    printed(work(1, 2), "stderr", "c"),
    done(work(0, 2), "join", s=3),
    done(work(1, 2), "join", s=3, caught=True),
    launched(JOIN, s=3),
    done(JOIN, "end", s=3.5, took_s=0.5),
    launched(END, s=3.5),
    done(END, s=4, took_s=0.5),
    ended("succeeded"),
]


class Shown:
    """A console over two texts."""

    def __init__(self, kind: type[Console] = Console, **look: bool) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.console = kind(Look(Sink(self.out), Sink(self.err), **look), GRAPH)

    def tell(self, events: list[RunEvent]) -> "Shown":
        for event in events:
            self.console.observe(event)
        return self

    @property
    def said(self) -> list[str]:
        """What went to stderr, without the times."""
        return [
            re.sub(r"^[-\d]{10} [:\d]{8}\.\d{3} ", "", x) for x in self.err.getvalue().splitlines()
        ]


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_each_change_is_a_line_on_stderr_and_output_keeps_its_stream() -> None:
    shown = Shown().tell(WELL)

    assert shown.said == [
        "Workflow starting (run-id R1):",
        "[start/0] Task is starting.",
        "[start/0] Foreach yields 2 child steps.",
        "[start/0] Task finished successfully.",
        "[work/0] Task is starting.",
        "[work/1] Task is starting.",
        "[work/1] c",
        "[work/0] Task finished successfully.",
        "[work/1] Task finished successfully (its failure was caught).",
        "[join/0] Task is starting.",
        "[join/0] Task finished successfully.",
        "[end/0] Task is starting.",
        "[end/0] Task finished successfully.",
    ]
    assert shown.out.getvalue() == "[work/0] a\n[work/0] b\n"
    assert shown.err.getvalue().startswith("2026-07-25 17:20:00.000 Workflow starting")


def test_the_summary_says_what_was_done_and_how_to_look() -> None:
    shown = Shown().tell(WELL)
    shown.console.summary()

    assert shown.said[-2:] == [
        "Done! Fan/R1: 5 tasks done in 4.0 s",
        "  look:  aflow dump R1   aflow logs R1",
    ]


def test_quiet_shows_what_tasks_print_and_nothing_else() -> None:
    shown = Shown(quiet=True).tell(WELL)
    shown.console.summary()

    assert shown.said == ["[work/1] c"]
    assert shown.out.getvalue() == "[work/0] a\n[work/0] b\n"


def test_a_failure_ends_the_summary_with_the_error_and_how_to_resume() -> None:
    shown = Shown().tell(
        [
            began("R0"),
            launched(work(0, 2), attempt=1),
            failed(work(0, 2), retry_in_s=1.5),
            failed(work(1, 2)),
            failed(work(0, 2)),
            ended("failed", failure=FAILURE, failed_task=work(1, 2)),
        ]
    )
    shown.console.summary()

    assert shown.said == [
        "Workflow starting (run-id R1, resuming R0):",
        "[work/0] Task is starting (retry).",
        "[work/0] Task failed: ValueError: no such luck",
        "[work/0] Task is tried again in 1.5 s.",
        "[work/1] Task failed: ValueError: no such luck",
        "[work/0] Task failed: ValueError: no such luck",
        "Workflow failed. Fan/R1: 0 tasks done, 2 failed in 4.0 s",
        "1 more failed: aflow logs R1 --failed",
        "error[task-failed]: work/1: ValueError: no such luck",
        "  flow.py:12  raise ValueError('no such luck')",
        "  | one",
        "  | two",
        "  run:  Fan/R1   resume: aflow resume R1",
    ]


def test_a_quiet_failure_is_told_all_the_same() -> None:
    shown = Shown(quiet=True).tell([began(), failed(END), ended("failed")])
    shown.console.summary()

    assert shown.said[0] == "error[task-failed]: end/0: ValueError: no such luck"


def test_a_failure_deep_in_the_user_s_code_shows_its_traceback() -> None:
    frames = "".join(f'  File "f.py", line {n}, in f\n    g()\n' for n in (1, 2))
    deep = structs.replace(
        FAILURE, traceback=f"Traceback (most recent call last):\n{frames}ValueError: x\n"
    )
    shown = Shown().tell([began(), ended("failed", failure=deep, failed_task=END)])
    shown.console.summary()

    told = shown.said[2:]
    assert told[1:5] == [
        "  flow.py:12  raise ValueError('no such luck')",
        "  Traceback (most recent call last):",
        '    File "f.py", line 1, in f',
        "      g()",
    ]
    assert told[-4:-2] == ["  ValueError: x", "  | one"]


def test_an_interrupted_run_says_how_to_resume_it() -> None:
    shown = Shown().tell(
        [
            began(),
            launched(END),
            failed(END, failure=CANCELLED),
            ended("interrupted", reason="SIGINT"),
        ]
    )
    shown.console.summary()

    assert shown.said[-4:] == [
        "[end/0] Task was ended: cancelled: enough",
        "Workflow interrupted. Fan/R1: 0 tasks done, 1 ended in 4.0 s",
        "Fan/R1 interrupted: SIGINT",
        "resume with: aflow resume R1",
    ]


def test_a_run_that_fails_without_a_task_says_why() -> None:
    shown = Shown().tell([began(), ended("failed", reason="the guard: 2,000,000 splits")])
    shown.console.summary()

    assert shown.said[-2:] == [
        "Fan/R1 failed: the guard: 2,000,000 splits",
        "resume with: aflow resume R1",
    ]


def test_reused_tasks_are_told_and_counted() -> None:
    shown = Shown().tell([began(), done(START, "work", fanout=1, reused=True, s=-100)])
    shown.tell([ended("succeeded")])
    shown.console.summary()

    assert shown.said[1] == "[start/0] Task reused."
    assert "2026-07-25 17:20:00.000 [start/0] Task reused." in shown.err.getvalue()
    assert shown.said[2] == "Done! Fan/R1: 0 tasks done, 1 reused in 4.0 s"


def test_a_message_names_its_task_once() -> None:
    named = Failure(code="task-lost", message="work/1 was killed by SIGKILL")
    tally = Tally()
    for event in (began(), ended("failed", failure=named, failed_task=work(1, 2))):
        tally.observe(event)

    lines = summary_lines(tally, Look(Sink(io.StringIO()), Sink(io.StringIO())))

    assert "error[task-lost]: work/1 was killed by SIGKILL" in lines


def test_what_tasks_print_is_made_harmless() -> None:
    shown = Shown().tell([began(), printed(END, "stdout", "\x1b[2Jx", "a\x00")])
    shown.console.close()

    assert shown.out.getvalue() == "[end/0] x\n[end/0] a\\x00\n"


def test_a_summary_of_nothing_is_nothing() -> None:
    assert summary_lines(Tally(), Look(Sink(io.StringIO()), Sink(io.StringIO()))) == []
    shown = Shown()
    shown.console.summary()
    assert shown.said == []


def test_a_reader_that_goes_away_does_not_stop_the_run() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        console = Console(Look(Sink(gone), Sink(io.StringIO())))
        for _ in range(3):
            console.observe(printed(END, "stdout", "x" * 100_000))
        assert console.look.out.broken
        console.close()


async def test_lines_are_written_together_and_soon() -> None:
    writes: list[str] = []

    class Counting(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return len(text)

    console = Console(Look(Sink(io.StringIO()), Sink(Counting())))
    for index in range(100):
        console.observe(launched(work(index, 100)))
    at_once = len(writes)
    await asyncio.sleep(0.05)

    assert (at_once, len(writes)) == (0, 1)
    assert writes[0].count("\n") == 100


@pytest.fixture
def null() -> Iterator[TextIO]:
    with Path(os.devnull).open("w") as stream:
        yield stream


@pytest.mark.serial
async def test_a_task_costs_the_console_less_than_30_us(null: TextIO) -> None:
    tasks = 2000
    events: list[RunEvent] = [began()]
    for index in range(tasks):
        key = work(index, tasks)
        events += (launched(key), printed(key, "stdout", "hello"), done(key, "join"))
    console = Console(Look(Sink(null), Sink(null)))
    before = time.process_time()
    for event in events:
        console.observe(event)
    console.close()
    taken = time.process_time() - before

    assert taken / tasks < 30e-6


# -- counting -------------------------------------------------------------------------------------


def test_what_is_to_come_is_read_off_the_graph() -> None:
    tally = Tally(GRAPH)
    tally.observe(began())
    before = {name: count.total for name, count in tally.steps.items()}
    tally.observe(launched(START))
    tally.observe(done(START, "work", fanout=100))
    after = {name: count.total for name, count in tally.steps.items()}

    assert before == {"start": 1, "work": 0, "join": 1, "end": 1}
    assert after == {"start": 1, "work": 100, "join": 1, "end": 1}


def test_rate_and_time_left_follow_the_last_seconds() -> None:
    tally = Tally(GRAPH)
    tally.observe(began())
    tally.observe(launched(START, s=0))
    tally.observe(done(START, "work", fanout=100, s=0))
    assert tally.rate() is None
    assert tally.eta_us() is None
    for index in range(40):
        tally.observe(launched(work(index, 100), s=index / 10))
        tally.observe(done(work(index, 100), "join", s=(index + 1) / 10, took_s=0.1))

    rate = tally.rate()
    assert rate == pytest.approx(10, rel=0.1)
    assert tally.eta_us() == pytest.approx(6_200_000, rel=0.1)  # 60 of work, join and end
    for index in range(40, 80):  # a pause, then slower
        tally.observe(launched(work(index, 100), s=60 + index))
        tally.observe(done(work(index, 100), "join", s=61 + index))
    assert tally.rate() == pytest.approx(1, rel=0.2)


def test_the_longest_running_task_is_known() -> None:
    tally = Tally(GRAPH)
    assert tally.slowest_running() is None
    for event in (
        began(),
        launched(work(0, 3), s=1),
        launched(work(1, 3), s=2),
        launched(work(2, 3), s=9),
    ):
        tally.observe(event)
    tally.observe(done(work(0, 3), "join", s=10))

    assert tally.slowest_running() == (work(1, 3), 8_000_000)
    assert tally.running == 2


def test_retries_and_failures_are_counted_apart() -> None:
    tally = Tally(GRAPH)
    for event in (
        began(),
        launched(work(0, 1)),
        failed(work(0, 1), retry_in_s=0.0),
        launched(work(0, 1), attempt=1),
        failed(work(0, 1)),
    ):
        tally.observe(event)

    count = tally.steps["work"]
    assert (count.retried, count.failed, count.running, tally.failed) == (1, 1, 0, 1)
    assert tally.failures == [(work(0, 1), FAILURE)]


def test_ten_thousand_tasks_leave_nothing_behind_in_the_counts() -> None:
    tally = Tally(GRAPH)
    tally.observe(began())
    for index in range(10_000):
        tally.observe(launched(work(index, 10_000), s=index / 1000))
        tally.observe(done(work(index, 10_000), "join", s=index / 1000))

    assert tally.running == 0
    assert sum(sys.getsizeof(getattr(tally, name)) for name in tally.__struct_fields__) < 3000


# -- the table ------------------------------------------------------------------------------------


def test_the_table_has_a_row_a_step_and_the_totals() -> None:
    tally = Tally(GRAPH)
    for event in WELL[:5]:
        tally.observe(event)

    rows = draw(tally, color=False, screen=(100, 40)).splitlines()

    assert len(rows) == 3
    assert re.match(r"start  +━{20}  +1/1  +slowest 1\.0 s \(0\)", rows[0])
    assert re.match(r"work   +━{20}  +0/2  +2 running", rows[1])
    assert rows[2].startswith("Fan/R1 · 1 done · 2 running · 2.0 s")


def test_failures_come_first_and_are_red() -> None:
    tally = Tally(GRAPH)
    for event in (*WELL[:5], failed(work(0, 2)), failed(work(1, 2), retry_in_s=1.0)):
        tally.observe(event)

    plain = draw(tally, color=False, screen=(100, 40)).splitlines()
    color = draw(tally, color=True, screen=(100, 40))

    assert plain[0].startswith("work")
    assert "1 failed  1 retried" in plain[0]
    assert "\x1b[" not in "".join(plain)
    assert "\x1b[31m" in color


def test_the_table_fits_the_screen_whatever_the_number_of_steps() -> None:
    tally = Tally()
    tally.observe(began())
    for index in range(50):
        tally.observe(launched(TaskKey(f"step_{index:02}"), s=index / 10))

    rows = draw(tally, color=False, screen=(60, 10)).splitlines()

    assert len(rows) <= 10
    assert "... and 44 more steps" in rows
    assert max(map(len, rows)) <= 60


def test_a_task_that_runs_long_is_named() -> None:
    tally = Tally(GRAPH)
    for event in (began(), launched(END, s=0), done(work(0, 1), "join", s=30)):
        tally.observe(event)

    assert "longest: end/0 30.0 s" in draw(tally, color=False, screen=(100, 40))


def test_reuse_rate_and_time_left_are_in_the_table() -> None:
    tally = Tally(GRAPH)
    tally.observe(began())
    tally.observe(done(START, "work", fanout=1000, reused=True))
    for index in range(500):
        tally.observe(launched(work(index, 1000), s=index / 100))
        tally.observe(done(work(index, 1000), "join", s=index / 100))

    text = draw(tally, color=False, screen=(120, 40))

    assert "1 reused" in text
    assert "tasks/s" in text
    assert "left" in text


async def test_the_table_is_drawn_over_below_what_tasks_print(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.cli.live.FIRST_DRAW_AFTER_S", 0.01)
    monkeypatch.setattr("engine.cli.live.REDRAW_AFTER_S", 0.01)
    monkeypatch.setattr("engine.cli.live.TICK_S", 0.02)
    shown = Shown(LiveConsole)
    shown.tell(WELL[:5])
    await asyncio.sleep(0.05)
    first = shown.err.getvalue()
    shown.tell([printed(work(0, 2), "stdout", "hello"), failed(work(1, 2), retry_in_s=0.0)])
    await asyncio.sleep(0.1)
    shown.tell([ended("succeeded", s=30)])
    shown.console.summary()

    assert "Task is starting" not in first
    assert first.count("Fan/R1 · ") >= 1
    assert "\x1b[3A\r\x1b[J" in shown.err.getvalue()
    assert shown.out.getvalue() == "[work/0] hello\n"
    assert "[work/1] Task failed: ValueError: no such luck" in shown.err.getvalue()
    after_table = shown.err.getvalue().rpartition("\x1b[J")[2]
    assert after_table.startswith("Done! Fan/R1: 1 tasks done")


def test_without_a_loop_a_live_console_still_tells() -> None:
    shown = Shown(LiveConsole).tell([*WELL])
    shown.console.summary()

    assert shown.out.getvalue() == "[work/0] a\n[work/0] b\n"
    assert shown.said[-2].startswith("Done!")


# -- JSON -----------------------------------------------------------------------------------------


def lines_of(shown: Shown) -> list[dict[str, object]]:
    return [json.loads(line) for line in shown.out.getvalue().splitlines()]


def test_every_event_is_a_line_of_json_and_the_last_is_the_result() -> None:
    shown = Shown(JsonConsole).tell(WELL)
    assert isinstance(shown.console, JsonConsole)
    shown.console.result(0)

    lines = lines_of(shown)
    assert [line["event"] for line in lines] == [
        *("run-began", "task-launched", "task-done", "task-launched", "task-launched"),
        *("task-output", "task-output", "task-done", "task-done", "task-launched", "task-done"),
        *("task-launched", "task-done", "result"),
    ]
    assert {line["schema"] for line in lines} == {"aflow/run/1"}
    assert shown.err.getvalue() == ""
    assert lines[0] == {
        "schema": "aflow/run/1",
        "event": "run-began",
        "at": "2026-07-25T17:20:00.000Z",
        "flow": "Fan",
        "run_id": "R1",
        "origin_run_id": None,
    }
    assert lines[2] == {
        "schema": "aflow/run/1",
        "event": "task-done",
        "at": "2026-07-25T17:20:02.000Z",
        "step": "start",
        "task_id": "0",
        "attempt": 0,
        "started_at": "2026-07-25T17:20:01.000Z",
        "duration_s": 1.0,
        "next": ["work"],
        "fanout": 2,
        "reused": False,
        "caught": False,
    }
    assert lines[5]["lines"] == [
        ["2026-07-25T17:20:01.000Z", "a"],
        ["2026-07-25T17:20:01.000Z", "b"],
    ]
    assert lines[-1] == {
        "schema": "aflow/run/1",
        "event": "result",
        "at": "2026-07-25T17:20:04.000Z",
        "flow": "Fan",
        "run_id": "R1",
        "status": "succeeded",
        "reason": None,
        "exit_code": 0,
        "duration_s": 4.0,
        "tasks": {"done": 5, "reused": 0, "failed": 0, "cancelled": 0},
        "failed_task": None,
        "error": None,
    }


def test_a_failed_run_s_result_holds_the_error() -> None:
    shown = Shown(JsonConsole).tell(
        [began(), failed(work(1, 2)), ended("failed", failed_task=work(1, 2))]
    )
    assert isinstance(shown.console, JsonConsole)
    shown.console.result(1)

    failure, result = lines_of(shown)[1:]
    assert (failure["event"], failure["retry_in_s"]) == ("task-failed", None)
    assert (result["exit_code"], result["failed_task"]) == (1, "work/1")
    assert result["error"] == failure["error"]
    assert result["error"] == {
        "code": "task-failed",
        "message": FAILURE.message,
        "hint": None,
        "details": {
            "type": "ValueError",
            "where": FAILURE.where,
            "traceback": FAILURE.traceback,
            "log_tail": ["one", "two"],
        },
    }
