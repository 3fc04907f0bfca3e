"""What the Batch emulator decides, without clock, processes or HTTP: laws for any jobs."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.testing.batch.capacity import ALL_INVALID, TOO_FEW_VCPUS, Capacity, Environment
from engine.testing.batch.faults import Plan, Plans, Rule
from engine.testing.batch.fleet import Fleet, Settings, Start, Stop
from engine.testing.batch.jobs import Container, Job, Outcome, Status, Work
from engine.testing.batch.limits import ApiError, TokenBucket
from engine.testing.batch.retries import again
from engine.testing.batch.views import filtered, page

QUEUE = "arn:aws:batch:us-east-1:123456789012:job-queue/q"
PLACE = "arn:ce"


def container(vcpus: float = 1) -> Container:
    return Container("image", ("true",), {}, vcpus, 128, "/group", "prefix", {})


def work(**more: Any) -> Work:
    vcpus = more.pop("vcpus", 1)
    nodes = tuple(container(vcpus) for _ in range(more.pop("count", 1)))
    fields: dict[str, Any] = {
        "definition_arn": "arn:d:1",
        "definition_name": "d",
        "queue_arn": QUEUE,
        "nodes": nodes,
    }
    return Work(**{**fields, **more})


class World:
    """A fleet, and containers that end with the codes that they are given in turn."""

    def __init__(self, codes: Sequence[int], *, vcpus: float = 4, plan: Plan | None = None) -> None:
        self.place = Environment(PLACE, True, vcpus, 10**6, 10**3)
        numbers = itertools.count()
        self.capacity = Capacity(lambda queue: [self.place])
        plans = Plans({"": plan or Plan()})
        self.fleet = Fleet(Settings(), self.capacity, lambda: f"id-{next(numbers)}", plans)
        self.fleet.news.listens = True
        self.codes = itertools.cycle(codes)
        self.now = 0.0
        self.started: Counter[tuple[str, int, int]] = Counter()
        self.told: list[tuple[str, str]] = []
        self.most_used = 0.0
        self._running: set[tuple[str, int, int]] = set()

    def submit(self, what: Work, size: int | None = None) -> Job:
        return self.fleet.submit("job", what, size, self.now)

    def play(self) -> None:
        """Let time pass until nothing more happens in an hour."""
        while (due := self.fleet.timers.due()) is not None and due < self.now + 3600:
            self.now = max(self.now, due)
            self.fleet.timers.advance(self.now)
            while self.fleet.commands:
                self._perform(self.fleet.commands.pop(0))
            self.most_used = max(self.most_used, self.capacity.used.get(PLACE, 0.0))

    def _perform(self, command: object) -> None:
        match command:
            case Start(job, node, attempt):
                key = (job.id, node, attempt)
                self.started[key] += 1
                self._running.add(key)
                self.fleet.started(job, node, attempt, self.now)
                code = next(self.codes)
                self.fleet.timers.at(self.now + 1, lambda at: self._end(job, key, code))
            case Stop(job, node, attempt):
                self._end(job, (job.id, node, attempt), 143)
            case told:
                detail = told.detail  # type: ignore[attr-defined]  # the third kind of command
                self.told.append((detail["jobId"], detail["status"]))

    def _end(self, job: Job, key: tuple[str, int, int], code: int) -> None:
        if key in self._running:
            self._running.remove(key)
            self.fleet.ended(job, key[1], key[2], Outcome(code), self.now)


@given(
    codes=st.lists(st.integers(0, 2), min_size=1, max_size=8),
    jobs=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5)),
        min_size=1,
        max_size=8,
    ),
    chance=st.sampled_from([0.0, 0.3]),
)
def test_each_job_ends_once_and_its_room_is_given_back(
    codes: list[int], jobs: list[tuple[int, int, int, int]], chance: float
) -> None:
    rules = tuple(Rule(fault, chance=chance) for fault in ("reclaim", "oom", "unpullable"))
    world = World(codes, plan=Plan(7, rules))
    submitted = []
    for vcpus, attempts, nodes, size in jobs:
        # Together at most four vCPUs, so that each job fits.
        each = work(vcpus=vcpus / nodes, attempts=attempts, count=nodes, is_multinode=nodes > 1)
        submitted.append(world.submit(each, size if size > 1 and nodes == 1 else None))
    world.play()
    ends = [job for parent in submitted for job in (parent, *parent.children)]
    assert all(job.status.is_end for job in ends)
    assert all(len(job.over) <= job.work.attempts for job in ends)
    assert all(count == 1 for count in world.started.values())
    told = Counter(told for told in world.told if told[1] in ("SUCCEEDED", "FAILED"))
    assert told == Counter((job.id, str(job.status)) for job in ends)
    assert abs(world.capacity.used.get(PLACE, 0.0)) < 1e-9
    assert world.most_used <= 4 + 1e-9
    for parent in submitted:
        if parent.counts:
            assert parent.counts == {
                **dict.fromkeys(Status, 0),
                **Counter(child.status for child in parent.children),
            }


def test_a_chain_of_10000_that_fails_at_its_first_ends() -> None:
    world = World([1])
    job = world.submit(work(depends_on=({"type": "SEQUENTIAL"},)), 10_000)
    world.play()
    assert job.status is Status.FAILED
    assert sum(world.started.values()) == 1


def test_a_job_that_does_not_fit_is_in_the_way_until_it_is_cancelled() -> None:
    world = World([0], vcpus=2)
    wide, small = world.submit(work(vcpus=3)), world.submit(work())
    world.play()
    assert (wide.status, wide.reason) == (Status.RUNNABLE, TOO_FEW_VCPUS)
    assert small.status is Status.RUNNABLE
    world.fleet.cancel(wide, "too wide", world.now)
    world.play()
    assert small.status is Status.SUCCEEDED


def test_a_job_waits_for_machines_that_are_disabled() -> None:
    world = World([0])
    world.place = Environment(PLACE, False, 4, 10**6, 10**3)
    job = world.submit(work())
    world.play()
    assert (job.status, job.reason) == (Status.RUNNABLE, ALL_INVALID)


@given(seed=st.integers(0, 100), order=st.permutations(range(20)))
def test_chance_strikes_the_same_jobs_in_any_order(seed: int, order: list[int]) -> None:
    def struck(numbers: Sequence[int]) -> set[int]:
        plan = Plan(seed, (Rule("reclaim", chance=0.5),))
        return {n for n in numbers if plan.strike("reclaim", f"job-{n}", attempt=1)}

    assert struck(order) == struck(range(20))


def test_a_rule_acts_as_often_as_it_may() -> None:
    plan = Plan(0, (Rule("reclaim", job="a-*", times=2),))
    assert [bool(plan.strike("reclaim", f"a-{n}")) for n in range(3)] == [True, True, False]
    assert plan.strike("reclaim", "b-1") is None


@pytest.mark.parametrize(
    ("conditions", "code", "reason", "expected"),
    [
        ((), 1, "", True),
        (({"onExitCode": "1", "action": "EXIT"},), 1, "", False),
        (({"onExitCode": "2", "action": "EXIT"},), 1, "", True),
        (({"onExitCode": "1*", "action": "exit"},), 137, "", False),
        (({"onReason": "CANNOTPULL*", "action": "EXIT"},), None, "CannotPullContainerError", False),
        (({"onExitCode": "1", "onReason": "no", "action": "EXIT"},), 1, "yes", True),
        (
            ({"onExitCode": "1", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}),
            1,
            "",
            True,
        ),
    ],
)
def test_the_first_condition_that_fits_decides(
    conditions: tuple[dict[str, str], ...], code: int | None, reason: str, expected: bool
) -> None:
    assert (
        again(conditions, Outcome(code, reason), "Essential container in task exited") is expected
    )


def test_a_bucket_lets_its_rate_through_in_the_long_run() -> None:
    bucket = TokenBucket(50.0)
    passed = 0
    for tick in range(10_000):  # ten seconds, a thousand requests in each
        with contextlib.suppress(ApiError):
            bucket.take(tick / 1000)
            passed += 1
    assert 499 <= passed - 50 <= 500


def test_pages_joined_are_the_whole() -> None:
    whole, token, found = list(range(250)), "0", []
    while token:
        part, token = page(whole, {"nextToken": token})  # type: ignore[assignment]  # ends it
        found += part
    assert found == whole


def test_jobs_are_found_by_when_they_were_made() -> None:
    world = World([0])
    jobs = []
    for world.now in (1.0, 2.0, 3.0):
        jobs.append(world.submit(work()))
    wanted = [
        {"name": "AFTER_CREATED_AT", "values": ["1500"]},
        {"name": "BEFORE_CREATED_AT", "values": ["2500"]},
    ]
    assert filtered(jobs, {"filters": wanted}) == [jobs[1]]


def test_a_filter_that_there_is_not_is_refused() -> None:
    world = World([0])
    with pytest.raises(ApiError):
        filtered([world.submit(work())], {"filters": [{"name": "COLOUR", "values": ["blue"]}]})
