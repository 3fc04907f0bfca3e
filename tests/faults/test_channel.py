"""S-05: whatever a task says on its channel, it harms no other task and not the driver."""

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.executors import wire
from engine.executors.base import Exit, ExitKind, JobEnded
from engine.executors.wire import FrameReader, Kind
from engine.scheduler.outcomes import read_report
from engine.stores.taskspec import Report
from engine.testing.executor_contract import watched
from engine.testing.fakes import GraphScript, Play
from tests.faults.jobs import ISOLATIONS, job
from tests.unit.executors.program import new_executor
from tests.unit.scheduler.flows import FANNED
from tests.unit.scheduler.rig import Rig

SAY = """
    import os, socket, struct
    channel, token = report._channel, report._token
    def say(words, of=token):
        channel.send(struct.pack("<I", of) + words)
"""
LIES = {
    "for each other task": "[say(b'forged', of=n) for n in range(1, 99) if n != token]",
    "nothing": "channel.send(b'')",
    "half a token": "channel.send(b'\\x01\\x00')",
    "too much": f"say(bytes({wire.REPORT_MAX_BYTES + 1}))",
    "again and again": "[say(b'x' * 1000) for _ in range(5000)]",
    "of a task that there is not": "say(b'forged', of=2**32 - 1)",
    "from a copy of itself": "os.fork() or (say(b'forged'), os._exit(0)); os.wait()",
}


@ISOLATIONS
@pytest.mark.parametrize("lie", LIES)
async def test_s05_what_a_task_says_counts_for_itself_only(
    isolation: str, lie: str, record_property: Any
) -> None:
    honest = job("honest", "import time; time.sleep(0.05); report(b'fine')")
    late = job("late", "report(b'fine')")
    liar = job("liar", SAY + f"    {LIES[lie]}\n    os._exit(0)\n")
    async with watched(new_executor(isolation)) as seen:
        await seen.executor.submit([honest, liar])
        ends = await seen.until_ended("honest", "liar")
        await seen.executor.submit([late])
        ends += await seen.until_ended("late")
    outcomes = {end.name: end.outcome for end in ends}
    assert (outcomes["honest"], outcomes["late"]) == (b"fine", b"fine")
    assert outcomes["liar"] == (b"x" * 1000 if lie == "again and again" else None)
    record_property("lies told", 1)


async def test_s05_a_task_holds_its_own_channel_and_no_other_descriptor_of_the_engine() -> None:
    source = """
        import os, stat
        for fd in os.listdir("/proc/self/fd"):
            try:
                mode = os.stat(f"/proc/self/fd/{fd}").st_mode
            except OSError:
                continue
            if stat.S_ISSOCK(mode) and int(fd) != report._channel.fileno():
                print("a socket", fd)
        report(b"")
    """
    async with watched(new_executor()) as seen:
        await seen.executor.submit([job("a", source)])
        await seen.until_ended("a")
    assert seen.text("a") == ""


def test_s05_a_frame_longer_than_the_most_is_refused_before_it_is_swallowed() -> None:
    reader = FrameReader(wire.REPLY_MAX_BYTES)
    head = wire.HEAD.pack(wire.REPLY_MAX_BYTES + 1, Kind.JOB_EXITED, 1)
    with pytest.raises(ValueError, match="is the most"):
        reader.feed(head)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FAILURE = st.dictionaries(
    st.sampled_from(["code", "message", "type", "log_tail", "retryable", "hint"]), PLAIN
)
SAID = st.one_of(
    st.binary(max_size=200),
    PLAIN.map(msgpack.packb),
    st.tuples(st.none() | PLAIN, st.none() | PLAIN, st.none() | FAILURE).map(msgpack.packb),
    st.integers(1, 2000).map(lambda deep: b"\x91" * deep + b"\xc0"),
)


@settings(max_examples=300, deadline=None)
@given(said=SAID)
def test_s05_a_report_is_read_as_one_or_is_a_failure_of_its_task(said: bytes) -> None:
    exit_ = Exit(ExitKind.RETURNED)
    report = read_report(JobEnded("a", exit_, 1, 2, said))
    assert isinstance(report, Report)
    assert isinstance(report.manifest, bytes | None)
    assert isinstance(report.manifest_digest, str | None)
    if report.failure:
        assert isinstance(report.failure.summary, str)
        assert all(isinstance(line, str) for line in report.failure.log_tail)
    assert report.failure or report.manifest or report.manifest_digest


HOSTILE = {
    "another task's": lambda good: good,
    "no manifest": lambda good: b"\xc1" * 40,
    "a cut one": lambda good: good[: len(good) // 2],
    "one with more behind it": lambda good: good + b"\x00",
    "one that is a list": lambda good: msgpack.packb([1, 2, 3]),
    "one whose next is a number": lambda good: msgpack.packb({**msgpack.unpackb(good), "next": 5}),
    "one of a later version": lambda good: msgpack.packb({**msgpack.unpackb(good), "v": 99}),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_s05_a_false_manifest_fails_its_task_and_no_other(how: str) -> None:
    graph = FANNED
    good = GraphScript(graph, fanout=lambda task: 3)
    taken: list[bytes] = []

    def script(job: Any) -> Play:
        play = good(job)
        if play.outcome and "work-0" in job.name:
            taken.append(Report.unpack(play.outcome).manifest or b"")
        if "work-1" in job.name:
            false = HOSTILE[how](taken[0])
            return Play(outcome=Report(manifest=false).pack())
        return play

    rig = Rig(graph, script, slots=1)
    done = rig.run()
    assert done.status == "failed"
    assert str(done.failed_task) == "work/1"
    assert done.failure is not None


def test_s05_a_digest_that_is_a_path_is_no_digest() -> None:
    good = GraphScript(FANNED, fanout=lambda task: 2)

    def script(job: Any) -> Play:
        if "work-1" in job.name:
            return Play(outcome=Report(manifest_digest="../../../etc/passwd").pack())
        return good(job)

    done = Rig(FANNED, script, slots=1).run()
    assert (done.status, str(done.failed_task)) == ("failed", "work/1")
