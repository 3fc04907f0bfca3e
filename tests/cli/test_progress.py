"""What of a run is counted, from its events."""

import sys

import pytest

from engine.cli.progress import Tally
from tests.cli.events import began, done, failed, launched
from tests.unit.client.stored import FAILURE, GRAPH, START, work


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
