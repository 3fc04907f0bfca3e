"""The table that is drawn over."""

import asyncio
import re

import pytest

from engine.cli.live import LiveConsole, draw
from engine.cli.progress import Tally
from engine.ids import TaskKey
from tests.cli.events import (
    WELL,
    Shown,
    began,
    done,
    ended,
    failed,
    launched,
    printed,
)
from tests.unit.client.stored import END, GRAPH, START, work


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
