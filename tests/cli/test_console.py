"""What is shown of a run in lines, from its events."""

import asyncio
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from msgspec import structs

from engine.cli.console import Console, Look, Sink, summary_lines
from engine.cli.progress import Tally
from engine.cli.report import failure_lines
from engine.errors import Failure
from tests.cli.events import (
    CANCELLED,
    WELL,
    Shown,
    began,
    done,
    ended,
    failed,
    launched,
    printed,
)
from tests.unit.client.stored import END, FAILURE, START, work


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


def test_a_traceback_that_the_task_printed_is_not_shown_again() -> None:
    frames = "".join(f'  File "f.py", line {n}, in f\n    g()\n' for n in (1, 2))
    traceback = f"Traceback (most recent call last):\n{frames}ValueError: x\n"
    tail = ("one", *traceback.splitlines())
    deep = structs.replace(FAILURE, traceback=traceback, log_tail=tail)
    shown = Shown().tell([began(), ended("failed", failure=deep, failed_task=END)])
    shown.console.summary()

    where = "  flow.py:12  raise ValueError('no such luck')"
    assert shown.said[3:5] == [where, "  | one"]
    assert "Traceback" not in "".join(shown.said)
    later = list(failure_lines(deep, run="Fan/R1"))
    assert later[1:4] == [
        where,
        "  Traceback (most recent call last):",
        '    File "f.py", line 1, in f',
    ]
    assert later[7:9] == ["  ValueError: x", "  | one"]


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
