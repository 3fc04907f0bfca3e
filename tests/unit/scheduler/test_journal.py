"""A run's records keep their meaning through the journal, and a replay comes to the same run."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Failure, StoreError
from engine.flow.graph import Transition
from engine.ids import Frame, TaskKey
from engine.scheduler.events import (
    CancelRequested,
    ExecutorLost,
    ResultRef,
    RetryDue,
    RunStarted,
    TaskFailed,
    TaskSucceeded,
)
from engine.scheduler.journal import (
    CancelRequestedRecord,
    ExecutorLostRecord,
    FailedRecord,
    Record,
    RetryDueRecord,
    RunBeganRecord,
    RunDoneRecord,
    SucceededRecord,
    committed,
    decode,
    encode,
    events,
)
from engine.stores.manifest import Manifest
from engine.testing.fakes import MemoryJournal

KEY = TaskKey("work", (Frame("start", 3, 9), Frame("fork", 1, 2, is_foreach=False)))
FAILURE = Failure("task-failed", "boom", type="ValueError", log_tail=("a", "b"), hint="look")

KEYS = st.builds(
    TaskKey,
    st.text(min_size=1),
    st.lists(
        st.builds(
            Frame, st.text(), st.integers(0), st.integers(1), st.integers(0), st.booleans()
        ).filter(lambda frame: frame.index < 2**63 and frame.total < 2**63 and frame.visit < 2**63)
    ).map(tuple),
    st.integers(0, 2**63 - 1),
)
FAILURES = st.builds(
    Failure,
    st.text(),
    st.text(),
    type=st.text(),
    traceback=st.text(),
    retryable=st.booleans(),
    log_tail=st.lists(st.text()).map(tuple),
)
TIMES = st.integers(0, 2**62)
RECORDS = st.one_of(
    st.builds(
        RunBeganRecord,
        TIMES,
        st.text(),
        st.text(),
        st.binary(),
        tags=st.lists(st.text()).map(tuple),
        origin_run_id=st.none() | st.text(),
        code=st.dictionaries(st.text(), st.text()),
    ),
    st.builds(SucceededRecord, TIMES, KEYS, TIMES, TIMES, TIMES, st.binary(), reused=st.booleans()),
    st.builds(FailedRecord, TIMES, KEYS, TIMES, TIMES, TIMES, FAILURES),
    st.builds(RetryDueRecord, TIMES, KEYS, TIMES),
    st.builds(CancelRequestedRecord, TIMES, st.text()),
    st.builds(ExecutorLostRecord, TIMES, st.text()),
    st.builds(
        RunDoneRecord,
        TIMES,
        st.sampled_from(["succeeded", "failed", "interrupted"]),
        st.none() | st.text(),
        st.none() | FAILURES,
        st.none() | KEYS,
    ),
)


def manifest(step: str = "work", *targets: str, fanout: int | None = None) -> bytes:
    return Manifest("Flow", "r1", step, "0", 0, {}, Transition(targets or ("end",), fanout)).pack()


def journal_of(*records: Record) -> MemoryJournal:
    journal = MemoryJournal()
    for record in records:
        journal.append(encode(record))
    return journal


@given(RECORDS)
def test_every_record_reads_back_as_it_was_written(record: Record) -> None:
    assert decode(encode(record)) == record


@given(st.binary())
def test_bytes_that_are_no_record_are_refused_and_not_guessed_at(noise: bytes) -> None:
    with pytest.raises(StoreError):
        decode(noise)


@given(RECORDS, st.data())
def test_a_torn_record_is_refused(record: Record, data: st.DataObject) -> None:
    whole = encode(record)
    with pytest.raises(StoreError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_a_record_of_a_later_version_is_refused_by_name() -> None:
    with pytest.raises(StoreError, match="kind 'run-done', version 2; this aflow reads version 1"):
        decode(msgpack.packb({"v": 2, "k": "run-done", "t": 1}))


def test_a_record_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(StoreError, match="'task-teleported'"):
        decode(msgpack.packb({"v": 1, "k": "task-teleported", "t": 1}))


def test_a_field_that_is_not_known_is_ignored() -> None:
    wire = msgpack.unpackb(encode(CancelRequestedRecord(7, "ctrl-c")))
    assert decode(msgpack.packb({**wire, "colour": "red"})) == CancelRequestedRecord(7, "ctrl-c")


def test_a_replay_tells_the_machine_what_it_was_told() -> None:
    journal = journal_of(
        RunBeganRecord(1, "Flow", "r1", b"parameters"),
        SucceededRecord(2, TaskKey("start"), 0, 1, 2, manifest("start", "work", fanout=9)),
        FailedRecord(3, KEY, 0, 1, 2, FAILURE),
        RetryDueRecord(4, KEY, 1),
        CancelRequestedRecord(5, "ctrl-c"),
        ExecutorLostRecord(6, "gone"),
        RunDoneRecord(7, "interrupted", "ctrl-c", FAILURE, KEY),
    )
    began, start = (ResultRef(offset) for offset, _ in list(journal.scan())[:2])
    assert list(events(journal.scan())) == [
        RunStarted(began),
        TaskSucceeded(TaskKey("start"), 0, Transition(("work",), 9), start),
        TaskFailed(KEY, 0, "ValueError: boom", True),
        RetryDue(KEY, 1),
        CancelRequested("ctrl-c"),
        ExecutorLost("gone"),
    ]


def test_commits_are_found_and_what_failed_is_not() -> None:
    done, failed = TaskKey("start"), KEY
    journal = journal_of(
        RunBeganRecord(1, "Flow", "r1", b""),
        SucceededRecord(2, done, 0, 1, 2, manifest("start")),
        FailedRecord(3, failed, 0, 1, 2, FAILURE),
    )
    ((key, offset),) = committed(journal.scan()).items()
    assert key == done
    assert decode(journal.read(offset)).task == done


def test_of_two_commits_of_a_task_the_first_counts() -> None:
    done = TaskKey("start")
    journal = journal_of(
        SucceededRecord(2, done, 0, 1, 2, b"first"), SucceededRecord(3, done, 1, 1, 2, b"second")
    )
    assert decode(journal.read(committed(journal.scan())[done])).manifest == b"first"


def test_a_failure_in_one_line_names_its_type_when_there_is_one() -> None:
    assert FAILURE.summary == "ValueError: boom"
    assert Failure("task-lost", "segmentation fault").summary == "segmentation fault"
