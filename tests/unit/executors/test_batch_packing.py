"""How many jobs share a container, and which wait for others."""

from engine.executors.base import Job
from engine.executors.batch_packing import (
    AUTO_MAX,
    CONTAINERS_LEAST,
    HOLD_S,
    MEASURED_MIN,
    Packing,
)
from engine.executors.batch_requests import AUTO_PACK, Needs

FIVE = Needs("queue", "image", pack=5, group="score")
AUTO = Needs("queue", "image", pack=AUTO_PACK, group="score")


def jobs(count: int) -> list[Job]:
    return [Job(f"job-{number}", b"") for number in range(count)]


def measured(took_s: float, *, in_batch: int) -> Packing:
    packing = Packing()
    packing.loads(AUTO, jobs(MEASURED_MIN + in_batch), 0.0)
    for number in range(MEASURED_MIN):
        packing.ended(AUTO, f"job-{number}", took_s)
    return packing


def test_without_a_pack_each_job_has_a_container_of_its_own() -> None:
    [load], waiting = Packing().loads(Needs("queue", "image"), jobs(7), 0.0)
    assert (len(load.jobs), load.pack, waiting) == (7, 1, [])


def test_what_fills_a_container_goes_and_the_rest_waits_for_siblings() -> None:
    packing = Packing()
    [load], waiting = packing.loads(FIVE, jobs(12), 0.0)
    assert (len(load.jobs), load.pack, len(waiting)) == (10, 5, 2)
    assert packing.wait_s(1.0) == HOLD_S - 1.0


def test_the_rest_goes_when_it_has_waited_long_enough() -> None:
    packing = Packing()
    _, waiting = packing.loads(FIVE, jobs(12), 0.0)
    assert packing.loads(FIVE, waiting, HOLD_S - 0.1) == ([], waiting)
    [load], waiting = packing.loads(FIVE, waiting, HOLD_S)
    assert (len(load.jobs), load.pack, waiting) == (2, 2, [])
    assert packing.wait_s(HOLD_S) is None


def test_nothing_waits_when_nothing_is_in_batch_whose_end_could_bring_more() -> None:
    packing = Packing()
    [load], waiting = packing.loads(FIVE, jobs(3), 0.0)
    assert (len(load.jobs), load.pack, waiting) == (3, 3, [])
    packing.loads(FIVE, jobs(1), 0.0)
    for number in range(3):
        packing.ended(FIVE, f"job-{number}", None)
    [load], waiting = packing.loads(FIVE, jobs(1), 1.0)
    assert waiting == []


def test_jobs_that_are_cancelled_while_they_wait_are_not_waited_for() -> None:
    packing = Packing()
    packing.loads(FIVE, jobs(7), 0.0)
    packing.begin(())
    assert packing.wait_s(1.0) is None


def test_the_first_of_a_group_go_alone_until_it_is_known_how_long_they_take() -> None:
    packing = Packing()
    [load], waiting = packing.loads(AUTO, jobs(64), 0.0)
    assert (load.pack, waiting) == (1, [])
    for number in range(MEASURED_MIN - 1):
        packing.ended(AUTO, f"job-{number}", 0.1)
    [load], waiting = packing.loads(AUTO, jobs(1), 0.0)
    assert load.pack == 1


def test_short_jobs_are_packed_for_a_minute_and_long_ones_are_not() -> None:
    for took_s, pack in ((90.0, 1), (40.0, 1), (20.0, 3), (1.0, 60), (0.001, AUTO_MAX)):
        [load, *_], _ = measured(took_s, in_batch=0).loads(AUTO, jobs(10_000), 0.0)
        assert load.pack == pack, took_s


def test_packing_by_duration_leaves_enough_containers_that_run_at_once() -> None:
    [load], waiting = measured(0.01, in_batch=0).loads(AUTO, jobs(4 * CONTAINERS_LEAST), 0.0)
    assert (load.pack, waiting) == (4, [])
