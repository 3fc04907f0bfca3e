"""FAULTS R-11, R-12, R-14, R-15 and R-16 for AWS Batch, by an executor in virtual time."""

import asyncio
import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.aws.rates import TokenBucket
from engine.errors import LimitExceededError
from engine.executors import batch_limits as limits
from engine.executors import batch_requests
from engine.executors.base import ExitKind, JobEnded
from engine.executors.batch import BatchExecutor
from engine.executors.batch_reasons import exit_of
from engine.executors.batch_requests import Needs, Submission
from engine.executors.batch_states import FAILED, RUNNING, SUCCEEDED, Seen, later
from engine.testing import virtual_time
from engine.testing.executor_contract import Watched, watched
from tests.unit.executors.batch_world import BatchWorld, job

Record = Callable[[str, object], None]
STATES = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", RUNNING)


async def ends(executor: BatchExecutor, *names: str, within_s: float) -> dict[str, JobEnded]:
    """The ends of jobs, once each has one."""
    seen = Watched(executor)
    async with asyncio.timeout(within_s):
        while not all(seen.ends(name) for name in names):
            await seen._collect()
    return {name: seen.ends(name)[0] for name in names}


async def until(claim: Callable[[], bool]) -> None:
    """Let virtual time pass until something is true."""
    async with asyncio.timeout(60.0):
        while not claim():  # noqa: ASYNC110 - time is virtual
            await asyncio.sleep(0.05)


# -- R-11 -----------------------------------------------------------------------------------------


@st.composite
def streams(draw: st.DrawFn) -> tuple[Seen, list[Seen]]:
    """The end of a job over up to four attempts of Batch, and news of its life: some of it lost,
    some twice, in any order; the end comes at last."""
    attempts = draw(st.integers(1, 4))
    life = [Seen("j", state, attempt=attempt) for attempt in range(attempts) for state in STATES]
    end = Seen(
        "j",
        draw(st.sampled_from((SUCCEEDED, FAILED))),
        exit_code=draw(st.integers(0, 255)),
        attempt=attempts,
    )
    news = draw(st.lists(st.sampled_from([*life, end]), max_size=30))
    return end, [*news, end, *draw(st.lists(st.sampled_from([*life, end]), max_size=5))]


def news_comes_to_the_end(story: tuple[Seen, list[Seen]]) -> None:
    end, news = story
    known: Seen | None = None
    for each in news:
        before, known = known, later(known, each)
        assert not (before and before.is_ended and known != before), "an end was taken back"
    assert known == end


@given(streams())
@settings(max_examples=300)
def test_r11_news_of_a_job_in_any_order_comes_to_the_same_end(
    story: tuple[Seen, list[Seen]],
) -> None:
    news_comes_to_the_end(story)


@pytest.mark.parametrize("is_mute", [False, True])
def test_r11_a_job_ends_whatever_is_lost_of_the_answers(is_mute: bool) -> None:
    async def scenario() -> dict[str, JobEnded]:
        world = BatchWorld()
        world.is_mute = is_mute
        world.faults["describe_jobs"] = ["empty", "throttled", "empty", "throttled"]
        async with watched(world.executor()) as seen:
            await seen.executor.submit([job("a", b"silent"), job("b", b"exits")])
            return await ends(seen.executor, "a", "b", within_s=60.0)

    done = virtual_time.run(scenario())
    assert (done["a"].exit.kind, done["a"].outcome) == (ExitKind.RETURNED, b"done")
    assert (done["b"].exit.kind, done["b"].exit.code) == (ExitKind.CODE, 3)


def test_r11_a_job_that_batch_forgot_is_settled_within_60_s(record_property: Record) -> None:
    async def scenario() -> tuple[dict[str, JobEnded], float]:
        world = BatchWorld()
        executor = world.executor(ask_min_s=1.0, ask_max_s=30.0)
        async with watched(executor):
            await executor.submit([job("a", b"vanishes")])
            done = await ends(executor, "a", within_s=120.0)
            return done, asyncio.get_running_loop().time()

    done, took_s = virtual_time.run(scenario())
    assert done["a"].exit.failure is not None
    assert "no longer knows" in done["a"].exit.failure.message
    assert took_s <= 60.0
    record_property("settled_s", round(took_s, 1))


# -- R-12 -----------------------------------------------------------------------------------------


def test_r12_a_submit_whose_answer_is_lost_is_found_by_name_and_not_sent_again() -> None:
    async def scenario() -> tuple[BatchWorld, dict[str, JobEnded]]:
        world = BatchWorld()
        world.faults["submit_job"] = ["reply lost"]
        executor = world.executor()
        async with watched(executor):
            await executor.submit([job("a")])
            return world, await ends(executor, "a", within_s=60.0)

    world, done = virtual_time.run(scenario())
    assert done["a"].outcome == b"done"
    assert world.calls["submit_job"] == 1


def test_r12_a_copy_that_shows_up_late_is_ended(record_property: Record) -> None:
    async def scenario() -> BatchWorld:
        world = BatchWorld()
        hidden: list[str] = []
        world.faults["submit_job"] = ["reply lost"]
        visible = world.list_jobs

        async def late(**body: object) -> object:
            if world.calls["submit_job"] == 1:  # what was just accepted is not listed yet
                world.calls["list_jobs"] += 1
                hidden.append("once")
                return {"jobSummaryList": []}
            return await visible(**body)

        world.list_jobs = late  # type: ignore[method-assign, assignment]  # a slower world
        executor = world.executor()
        async with watched(executor):
            await executor.submit([job("a", b"waits")])
            await until(lambda: any(s.terminated for s in world.jobs.values()))
            assert hidden
            assert len(world.running()) == 1
        return world

    world = virtual_time.run(scenario())
    assert len(world.jobs) == 2
    record_property("copies", 1)


def test_r12_a_driver_that_starts_again_adopts_what_runs(record_property: Record) -> None:
    jobs = [job(f"r-s-{number}-0", b"waits") for number in range(200)]

    async def scenario() -> tuple[BatchWorld, int]:
        world = BatchWorld()
        first = world.executor(is_detached=True)
        await first.submit(jobs)
        await until(lambda: len(world.running()) == len(jobs))
        await first.aclose()  # detached: as a driver that is gone
        before = world.calls["submit_job"]
        second = world.executor()
        async with watched(second) as seen:
            await second.submit(jobs)
            await seen.until_started(jobs[0].name)
            await second.cancel([j.name for j in jobs], reason="enough")
            await seen.until_ended(*(j.name for j in jobs))
        assert not world.running()
        return world, world.calls["submit_job"] - before

    world, again = virtual_time.run(scenario())
    assert again == 0
    assert len(world.jobs) == 1
    record_property("adopted", len(jobs))


# -- R-14 -----------------------------------------------------------------------------------------


def test_r14_batch_itself_starts_a_reclaimed_job_again_and_nothing_else() -> None:
    strategy = batch_requests.retry_strategy(4)
    assert strategy["attempts"] == 5
    assert strategy["evaluateOnExit"] == [
        {"onStatusReason": "Host EC2*", "action": "RETRY"},
        {"onReason": "*", "action": "EXIT"},
    ]


def test_r14_a_job_that_lost_its_machine_too_often_says_so() -> None:
    seen = Seen("j", FAILED, status_reason="Host EC2 (instance i-0abc) terminated.")
    failure = exit_of(seen).failure
    assert failure is not None
    assert (failure.code, failure.retryable) == ("host-lost", True)


# -- R-15 -----------------------------------------------------------------------------------------


def test_r15_ten_thousand_jobs_pass_a_throttled_api(record_property: Record) -> None:
    count = 10_000
    jobs = [job(f"r-s-{number}-0") for number in range(count)]

    async def scenario() -> tuple[BatchWorld, float, int]:
        world = BatchWorld()
        world.step_s = 10.0
        world.faults["submit_job"] = ["throttled"] * 3
        world.faults["describe_jobs"] = ["throttled"] * 3
        executor = world.executor(ask_min_s=1.0, ask_max_s=30.0, listen_max_s=2.0, pages_s=4.0)
        clock = asyncio.get_running_loop().time
        executor._client._bucket = TokenBucket(limits.OUR_CALLS_S, limits.OUR_CALLS_S, clock=clock)
        async with watched(executor) as seen:
            await executor.submit(jobs)
            ended = 0
            async for updates in executor.updates():
                ended += sum(isinstance(u, JobEnded) and u.outcome == b"done" for u in updates)
                if ended == count:
                    break
            assert not seen.updates
            return world, clock(), ended

    world, took_s, ended = virtual_time.run(scenario())
    calls = sum(world.calls.values())
    assert ended == count
    assert world.calls["submit_job"] == 4  # one array, refused three times
    assert calls / took_s <= 10.0
    record_property("jobs", count)
    record_property("calls", calls)


# -- R-16 -----------------------------------------------------------------------------------------


def _body(value_bytes: int) -> object:
    needs = Needs("queue", "image", variables={"X": "x" * value_bytes})
    return batch_requests.submit_body(Submission("p", ["a"], needs), "d", {})


def test_r16_overrides_of_8192_bytes_pass_and_of_8193_are_refused_before_they_are_sent(
    record_property: Record,
) -> None:
    fits = 0
    for size in range(7_900, 8_200):
        try:
            body = _body(size)
        except LimitExceededError:
            break
        fits = size
        overrides = body["containerOverrides"]  # type: ignore[index]  # a body is a dict
        length = len(json.dumps(overrides, separators=(",", ":")))
    assert length == limits.OVERRIDES_MAX_BYTES
    with pytest.raises(LimitExceededError, match="8,193"):
        _body(fits + 1)
    record_property("limits", 1)


@pytest.mark.parametrize("count", [1, 2, 9_999, 10_000, 10_001, 20_001])
def test_r16_arrays_are_of_2_to_10000(count: int) -> None:
    chunks = batch_requests.array_chunks(range(count))
    assert [i for chunk in chunks for i in chunk] == list(range(count))
    assert all(1 <= len(chunk) <= limits.ARRAY_MAX for chunk in chunks)
    assert len(chunks) == -(-count // limits.ARRAY_MAX)


@given(st.text(min_size=1, max_size=300))
def test_r16_every_name_is_one_that_batch_takes(text: str) -> None:
    name = batch_requests.safe_job_name(text)
    assert 1 <= len(name) <= limits.NAME_MAX
    assert name.isascii()
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def test_r16_a_definition_that_is_too_large_is_refused_before_it_is_sent() -> None:
    needs = Needs("queue", "image", host_volumes=[f"/{'v' * 100}{n}" for n in range(200)])
    with pytest.raises(LimitExceededError, match="24,576"):
        batch_requests.definition(needs, ["true"])
