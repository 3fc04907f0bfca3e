"""R-08: what a store refuses of a run's facts waits, and is written when it can be."""

import asyncio
from collections.abc import Collection, Sequence

import pytest

from engine.errors import MetadataDamagedError, StoreError, StoreUnavailableError
from engine.flow.graph import Transition
from engine.ids import TaskKey
from engine.runtime.recorder import Recorder
from engine.scheduler.events import ResultRef
from engine.scheduler.progress import RunDone, TaskDone, TaskOutput
from engine.stores.metadata.base import RunRecord, TaskRecord
from engine.stores.metadata.memory import MemoryMetadata
from engine.testing import virtual_time

RECORD = RunRecord("F", "R", "running", 1)


class Flapping(MemoryMetadata):
    """Refuses some calls, counted over both kinds."""

    def __init__(self, refused: Collection[int], error: StoreError | None = None) -> None:
        super().__init__()
        self.calls = 0
        self._refused = refused
        self._error = error or StoreUnavailableError("no room")

    def _count(self) -> None:
        self.calls += 1
        if self.calls in self._refused:
            raise self._error

    async def put_runs(self, runs: Collection[RunRecord]) -> None:
        self._count()
        await super().put_runs(runs)

    async def put_tasks(self, tasks: Collection[TaskRecord]) -> None:
        self._count()
        await super().put_tasks(tasks)


def done(index: int) -> TaskDone:
    return TaskDone(TaskKey("s", (), index), 0, 1, 2, Transition(("end",)), ResultRef(4), 5)


def play(store: Flapping, *, log_refuses: int = 0) -> list[str]:
    """Record a run of five tasks, each with a line; return the lines that the log has."""
    written: list[str] = []
    left = [log_refuses]

    def write_log(outputs: Sequence[TaskOutput]) -> None:
        if left[0]:
            left[0] -= 1
            raise StoreUnavailableError("no room for lines")
        written.extend(text for output in outputs for _, text in output.lines)

    async def scenario() -> None:
        recorder = Recorder(store, RECORD, write_log)
        async with asyncio.TaskGroup() as group:
            group.create_task(recorder.run(lambda reason: None))
            for index in range(5):
                recorder.observe(TaskOutput(TaskKey("s"), 0, "stdout", ((1, f"line {index}"),)))
                recorder.observe(done(index))
                await asyncio.sleep(0.3)
            recorder.observe(RunDone("succeeded", 9))
            recorder.close()

    virtual_time.run(scenario())
    return written


async def statuses(store: MemoryMetadata) -> tuple[str, int]:
    run = await store.run("F", "R")
    tasks = [task async for task in store.tasks("F", "R")]
    return (run.status if run else "unknown"), len(tasks)


@pytest.mark.parametrize("refused", [{3}, {3, 4, 5}, {4, 6}])
def test_r08_a_batch_that_is_refused_is_written_with_the_next(refused: set[int]) -> None:
    store = Flapping(refused)
    assert play(store) == [f"line {n}" for n in range(5)]
    assert asyncio.run(statuses(store)) == ("succeeded", 5)


def test_r08_lines_that_are_refused_are_written_later_in_their_order() -> None:
    store = Flapping(())
    assert play(store, log_refuses=2) == [f"line {n}" for n in range(5)]


@pytest.mark.parametrize("refused", [{1}, range(4, 100)], ids=["the first", "all in the end"])
def test_r08_what_is_never_taken_is_told(refused: Collection[int]) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        play(Flapping(refused))
    assert caught.group_contains(StoreUnavailableError, match="no room")


def test_r07_a_database_that_is_damaged_is_not_tried_again() -> None:
    store = Flapping(range(3, 100), MetadataDamagedError("metadata.db", problem="malformed"))
    with pytest.raises(ExceptionGroup) as caught:
        play(store)
    assert caught.group_contains(MetadataDamagedError)
    assert store.calls <= 5
