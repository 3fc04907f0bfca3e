"""What a run tells is written, or the run ends and says why it is not."""

import asyncio
from collections.abc import Callable, Collection, Sequence

import pytest

from engine.errors import StoreUnavailableError
from engine.runtime.recorder import Recorder, run_recorded
from engine.scheduler.journal import RunDoneRecord
from engine.scheduler.progress import TaskOutput
from engine.stores.metadata.base import RunRecord, TaskRecord
from engine.stores.metadata.memory import MemoryMetadata
from engine.testing.fakes import GraphScript, MemoryJournal, Play
from tests.unit.scheduler.flows import LINE
from tests.unit.scheduler.rig import Rig

RUN = RunRecord("Flow", "r1", "running", 1)


class SlowMetadata(MemoryMetadata):
    """Takes a second for each write."""

    async def put_runs(self, runs: Collection[RunRecord]) -> None:
        await asyncio.sleep(1.0)
        await super().put_runs(runs)


class FullMetadata(MemoryMetadata):
    async def put_runs(self, runs: Collection[RunRecord]) -> None:
        raise StoreUnavailableError("no space is left for the database")


class BusyMetadata(MemoryMetadata):
    """Refuses once."""

    refusals = 0

    async def put_tasks(self, tasks: Collection[TaskRecord]) -> None:
        if not self.refusals:
            self.refusals += 1
            raise StoreUnavailableError("the database is busy")
        await super().put_tasks(tasks)


def full(lines: Sequence[TaskOutput]) -> None:
    raise StoreUnavailableError("no space is left for the log")


def recorded(
    metadata: MemoryMetadata, write_log: Callable[[Sequence[TaskOutput]], None], *, hours: int = 0
) -> tuple[Rig, Recorder]:
    """A run that prints a line first, beside its recorder."""
    script = GraphScript(LINE, seconds=3600.0 * hours or 1.0)

    def printing(job: object) -> Play:
        play = script(job)  # type: ignore[arg-type]  # a Job
        return Play(play.seconds, play.outcome, stdout=("hello",))

    recorder = Recorder(metadata, RUN, write_log)
    return Rig(LINE, printing, observers=[recorder.observe]), recorder


def test_a_log_that_cannot_be_written_ends_the_run_and_is_raised() -> None:
    metadata = MemoryMetadata()
    rig, recorder = recorded(metadata, full, hours=1)

    async def scenario() -> RunRecord | None:
        with pytest.raises(StoreUnavailableError, match="no space is left for the log"):
            await run_recorded(rig.driver, recorder)
        return await metadata.run("Flow", "r1")

    run = rig.play(scenario)
    assert rig.ended_s < 3600.0  # the task in flight was cancelled
    done = rig.records()[-1]
    assert isinstance(done, RunDoneRecord)
    assert (done.status, done.reason) == (
        "interrupted",
        "the run could not be recorded: no space is left for the log",
    )
    assert run is not None
    assert run.status == "interrupted"  # what could be recorded was


def test_metadata_that_cannot_be_written_end_the_run_and_are_raised() -> None:
    rig, recorder = recorded(FullMetadata(), lambda lines: None, hours=1)

    async def scenario() -> None:
        with pytest.raises(StoreUnavailableError, match="no space is left for the database"):
            await run_recorded(rig.driver, recorder)

    rig.play(scenario)
    done = rig.records()[-1]
    assert isinstance(done, RunDoneRecord)
    assert "no space is left for the database" in str(done.reason)


def test_what_could_not_be_recorded_at_first_is_recorded_at_the_end() -> None:
    metadata = BusyMetadata()
    rig, recorder = recorded(metadata, lambda lines: None, hours=1)

    async def scenario() -> list[TaskRecord]:
        with pytest.raises(StoreUnavailableError, match="the database is busy"):
            await run_recorded(rig.driver, recorder)
        return [task async for task in metadata.tasks("Flow", "r1")]

    (task,) = rig.play(scenario)
    assert (task.step, task.status) == ("start", "failed")
    assert metadata.refusals == 1


def test_a_run_whose_first_frame_is_refused_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = MemoryMetadata()
    rig, recorder = recorded(metadata, lambda lines: None)

    def refuse(self: MemoryJournal, payload: bytes) -> int:
        raise StoreUnavailableError("no memory is left for the journal")

    monkeypatch.setattr(MemoryJournal, "append", refuse)

    async def scenario() -> RunRecord | None:
        with pytest.raises(StoreUnavailableError, match="no memory is left"):
            await run_recorded(rig.driver, recorder)
        return await metadata.run("Flow", "r1")

    assert rig.play(scenario) is None


def test_a_cancel_while_the_end_is_being_recorded_does_not_lose_it() -> None:
    metadata = SlowMetadata()
    rig, recorder = recorded(metadata, lambda lines: None)

    async def scenario() -> RunRecord | None:
        running = asyncio.ensure_future(run_recorded(rig.driver, recorder))
        # The run's three steps are over after 3 s, and its end is written from then to the fourth.
        asyncio.get_running_loop().call_later(3.5, running.cancel)
        await asyncio.wait({running})
        assert running.cancelled()
        return await metadata.run("Flow", "r1")

    run = rig.play(scenario)
    assert run is not None
    assert run.status == "succeeded"
