"""A worker is told what its attempt needs: its parents, its items, its last chance."""

import asyncio
from collections.abc import Sequence

import msgpack
import pytest

from engine.errors import InvariantError, StoreError
from engine.executors.base import Job
from engine.flow.graph import Graph, Retry, Transition
from engine.ids import TaskKey
from engine.scheduler.commands import Launch
from engine.scheduler.events import ResultRef
from engine.scheduler.jobs import JobFactory, ReadList, RunFacts
from engine.scheduler.journal import RetryDueRecord, SucceededRecord, encode
from engine.stores.manifest import Entry, Manifest
from engine.stores.packed import PackedList, pack_list
from engine.stores.taskspec import InputRef, TaskSpec
from engine.testing.fakes import MemoryBlobs, MemoryJournal, int_entry, items_entry
from tests.unit.scheduler.flows import FANNED, LINE, NESTED, Step, flow, item

FACTS = RunFacts(
    "Flow",
    "r1",
    "/store",
    b"parameters",
    origin_run_id="r0",
    username="ann",
    tags=("a", "b"),
    environments={"work": {"DEBUG": "1"}},
    resources={"work": {"memory": 512}},
)
START = TaskKey("start")


class Bench:
    """A factory over a journal in memory whose reads are counted."""

    def __init__(
        self, graph: Graph, facts: RunFacts = FACTS, read_list: ReadList | None = None
    ) -> None:
        self.reads = 0
        bench = self

        class Counting(MemoryJournal):
            def read(self, offset: int) -> bytes:
                bench.reads += 1
                return super().read(offset)

        self.journal = Counting()
        self.blobs = MemoryBlobs()
        self.factory = JobFactory(graph, facts, self.journal, self.blobs.put, read_list)

    def commit(self, task: TaskKey, items: Entry | None = None, pad: int = 0) -> ResultRef:
        artifacts = {"pad": Entry("bytes", "bytes", pad, "", inline=b"x" * pad)} if pad else {}
        manifest = Manifest(
            "Flow", "r1", task.step, task.task_id, 0, artifacts, Transition(("next",)), items
        )
        record = SucceededRecord(1, task, 0, 1, 2, manifest.pack())
        return ResultRef(self.journal.append(encode(record)))

    def job(
        self,
        task: TaskKey,
        inputs: Sequence[ResultRef],
        scope: tuple[ResultRef, ...] = (),
        attempt: int = 0,
        fallback: str | None = None,
    ) -> Job:
        return asyncio.run(self.factory.make(Launch(task, attempt, inputs, scope, fallback)))

    def spec(self, *args: object, **options: object) -> TaskSpec:
        return TaskSpec.unpack(self.job(*args, **options).spec)


def test_a_spec_holds_the_runs_facts_and_those_of_its_step() -> None:
    bench = Bench(LINE)
    parent = bench.commit(START)
    job = bench.job(TaskKey("work"), [parent], attempt=2)
    spec = TaskSpec.unpack(job.spec)
    assert job.name == "r1-work-0-2"
    assert dict(job.resources) == {"memory": 512}
    assert (spec.flow, spec.run_id, spec.step, spec.task_id, spec.attempt) == (
        ("Flow", "r1", "work", "0", 2)
    )
    assert (spec.datastore, spec.parameters, spec.username) == ("/store", b"parameters", "ann")
    assert (spec.origin_run_id, spec.tags, spec.environment) == ("r0", ("a", "b"), {"DEBUG": "1"})


def test_the_start_step_has_the_parameters_and_no_other_input() -> None:
    bench = Bench(LINE)
    spec = bench.spec(START, [ResultRef(4)])
    assert list(spec.inputs) == []
    assert spec.parameters == b"parameters"
    assert bench.reads == 0


def test_a_parent_comes_with_its_manifest() -> None:
    bench = Bench(LINE)
    parent = bench.commit(START)
    (only,) = bench.spec(TaskKey("work"), [parent]).inputs
    assert (only.step, only.task_id) == ("start", "0")
    assert Manifest.unpack(only.manifest).step == "start"


@pytest.mark.parametrize(("attempt", "is_last"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_worker_knows_whether_it_is_the_last_attempt(attempt: int, is_last: bool) -> None:
    bench = Bench(flow(Step("work", Retry(times=2))))
    parent = bench.commit(START)
    assert bench.spec(TaskKey("work"), [parent], attempt=attempt).last_attempt is is_last


def test_a_fallback_is_told_what_to_catch() -> None:
    bench = Bench(LINE)
    parent = bench.commit(START)
    assert bench.spec(TaskKey("work"), [parent], fallback="killed").fallback == "killed"


def test_the_executor_kills_four_seconds_after_the_worker_should_have_raised() -> None:
    bench = Bench(flow(Step("work", timeout_s=60.0)))
    parent = bench.commit(START)
    job = bench.job(TaskKey("work"), [parent])
    assert job.deadline_s == 64.0
    assert TaskSpec.unpack(job.spec).timeout_s == 60.0
    assert bench.job(TaskKey("end"), [parent]).deadline_s is None


def test_each_child_gets_its_own_item_only() -> None:
    bench = Bench(FANNED)
    split = bench.commit(START, items_entry([10, 11, 12]))
    for index in range(3):
        spec = bench.spec(item("work", ("start", index, 3)), [split], (split,))
        assert list(spec.items_whole) == [False]
        assert Entry.unpack(spec.items[0]) == int_entry(10 + index)


def test_items_of_nested_foreachs_come_outermost_first() -> None:
    bench = Bench(NESTED)
    outer_split = bench.commit(START, items_entry([10, 11]))
    outer = item("outer", ("start", 1, 2))
    inner_split = bench.commit(outer, items_entry([20, 21, 22]))
    inner = item("inner", ("start", 1, 2), ("outer", 2, 3))
    spec = bench.spec(inner, [inner_split], (outer_split, inner_split))
    assert [Entry.unpack(data) for data in spec.items] == [
        int_entry(11),
        int_entry(22),
    ]
    assert spec.frames == inner.frames


@pytest.mark.parametrize(
    "items",
    [
        Entry("packed", "list", 9_000, "sha", digest="d" * 64),
        Entry("packed", "list", 9_000, "sha", inline=b"squeezed", codec="zstd"),
    ],
    ids=["in a blob", "squeezed"],
)
def test_a_list_that_cannot_be_read_here_is_passed_on_whole(items: Entry) -> None:
    bench = Bench(FANNED)
    split = bench.commit(START, items)
    spec = bench.spec(item("work", ("start", 1, 2)), [split], (split,))
    assert list(spec.items_whole) == [True]
    assert Entry.unpack(spec.items[0]) == items


def test_of_a_list_in_a_blob_that_is_here_each_child_gets_its_item_unless_it_is_large() -> None:
    reads: list[Entry] = []
    large = Entry("bytes", "bytes", 5_000, "", inline=b"x" * 5_000)
    data = pack_list([int_entry(10).pack(), large.pack()])

    async def read_list(entry: Entry) -> memoryview:
        reads.append(entry)
        return memoryview(data)

    bench = Bench(FANNED, read_list=read_list)
    items = Entry("packed", "list", len(data), "sha", digest="d" * 64)
    split = bench.commit(START, items)
    small, big = (bench.spec(item("work", ("start", i, 2)), [split], (split,)) for i in (0, 1))

    assert (list(small.items_whole), Entry.unpack(small.items[0])) == ([False], int_entry(10))
    assert (list(big.items_whole), Entry.unpack(big.items[0])) == ([True], items)
    assert reads == [items]  # once for both


def joined(bench: Bench, width: int, pad: int = 0) -> tuple[TaskSpec, list[InputRef]]:
    """The spec of a join over `width`, and its inputs wherever they are."""
    refs = [bench.commit(item("work", ("start", i, width)), pad=pad) for i in range(width)]
    spec = bench.spec(TaskKey("join_start"), refs)
    if spec.inputs_digest is None:
        return spec, list(spec.inputs)
    bundle = PackedList(bench.blobs.blobs[spec.inputs_digest])
    return spec, [InputRef(*msgpack.unpackb(data)) for data in bundle]


@pytest.mark.parametrize(
    ("width", "pad", "in_blob"),
    [(1, 0, False), (16, 0, False), (17, 0, True), (1_200, 0, True), (8, 5_000, True)],
)
def test_a_joins_inputs_are_in_the_spec_while_few_and_small_and_in_order(
    width: int, pad: int, in_blob: bool
) -> None:
    spec, inputs = joined(Bench(FANNED), width, pad)
    assert (spec.inputs_digest is not None) is in_blob
    assert bool(spec.inputs) is not in_blob
    assert [(i.step, i.task_id) for i in inputs] == [("work", str(i)) for i in range(width)]


def test_siblings_share_what_is_read_of_their_parent() -> None:
    bench = Bench(FANNED)
    split = bench.commit(START, items_entry(range(100)))
    for index in range(100):
        bench.job(item("work", ("start", index, 100)), [split], (split,))
    assert bench.reads == 1


def test_siblings_of_a_parent_too_large_for_a_spec_share_one_blob() -> None:
    bench = Bench(FANNED)
    split = bench.commit(START, items_entry([1, 2]), pad=40_000)
    specs = [bench.spec(item("work", ("start", i, 2)), [split], (split,)) for i in range(2)]
    assert specs[0].inputs_digest == specs[1].inputs_digest
    assert list(bench.blobs.blobs) == [specs[0].inputs_digest]
    assert bench.reads == 2  # once for the cache, once for the blob


def test_what_is_kept_is_bounded() -> None:
    bench = Bench(flow(Step("work"), Step("more")))
    for index in range(150):
        split = bench.commit(START, items_entry([index]))
        work = bench.commit(item("work", ("start", 0, 1)))
        bench.job(item("more", ("start", 0, 1)), [work], (split,))
    assert len(bench.factory._parents) == 128
    assert len(bench.factory._items) == 16


def test_a_frame_that_is_no_commit_is_a_contradiction() -> None:
    bench = Bench(LINE)
    ref = ResultRef(bench.journal.append(encode(RetryDueRecord(1, START, 1))))
    with pytest.raises(InvariantError, match=f"frame {ref} is no commit"):
        bench.job(TaskKey("work"), [ref])


def test_a_split_without_items_is_a_contradiction() -> None:
    bench = Bench(FANNED)
    split = bench.commit(START)
    with pytest.raises(InvariantError, match="has no items"):
        bench.job(item("work", ("start", 0, 1)), [split], (split,))


def test_a_frame_that_is_not_there_is_the_stores_error() -> None:
    with pytest.raises(StoreError, match="no frame begins at 12345"):
        Bench(LINE).job(TaskKey("work"), [ResultRef(12345)])
