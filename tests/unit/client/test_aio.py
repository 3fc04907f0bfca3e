"""The awaited client says what the synchronous one says."""

import inspect
from pathlib import Path

import pytest

from engine.client import aio, sync
from engine.client.reader import Reader
from engine.errors import NotFoundError
from tests.unit.client.stored import BEGAN_US, FAILURE, Stored, failed, succeeded, work


async def test_a_value_is_reached_with_awaits(datastore: Path) -> None:
    succeeded(datastore, "R1")

    run = await aio.Flow("Fan").latest_run

    assert run is not None
    assert [await task.data.x async for task in run["work"].tasks()] == [0, 2, 4]
    assert await run.data.name == "fan"


async def test_naming_a_thing_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFLOW_DATASTORE", str(tmp_path / "nowhere"))

    task = aio.Flow("Fan")["R1"]["work"]["0"]

    assert (task.pathspec, task.id) == ("Fan/R1/work/0", "0")
    assert task.path_components == ["Fan", "R1", "work", "0"]
    assert repr(task) == "Task('Fan/R1/work/0')"
    assert task == aio.Task("Fan/R1/work/0")
    assert len({task, aio.Task("Fan/R1/work/0")}) == 1


async def test_what_is_not_there_is_not_found_when_it_is_read(datastore: Path) -> None:
    failed(datastore, "R1")

    with pytest.raises(NotFoundError):
        await aio.Run("Fan/nope").status
    with pytest.raises(NotFoundError):
        await aio.Flow("Nope").latest_run
    with pytest.raises(AttributeError):
        await aio.Task("Fan/R1/work/1").data.x
    with pytest.raises(AttributeError):
        await aio.Run("Fan/R1").data.x
    with pytest.raises(AttributeError):
        _ = aio.Task("Fan/R1/work/1").data.__wrapped__


async def test_lists_are_read_by_page_and_whole(datastore: Path) -> None:
    run = Stored(datastore, "R1")
    for index in range(250):
        run.launch(work(index, 250))
    run.die()

    found = [task.id async for task in aio.Step("Fan/R1/work")]

    assert found == [str(index) for index in range(250)]


async def test_flows_and_runs_are_walked(datastore: Path) -> None:
    succeeded(datastore, "R1", tags=("t",))
    failed(datastore, "R2", began_us=BEGAN_US + 1)

    found = aio.Client()

    assert await found.flows == [aio.Flow("Fan")]
    assert [flow async for flow in found] == [aio.Flow("Fan")]
    flow = found["Fan"]
    assert [run.id async for run in flow] == ["R2", "R1"]
    assert [run.id async for run in flow.runs("t")] == ["R1"]
    assert await flow.latest_successful_run == aio.Run("Fan/R1")
    assert await flow.created_at == sync.Flow("Fan").created_at
    assert await flow.finished_at == sync.Flow("Fan").finished_at


async def test_every_attribute_of_a_run_is_that_of_the_other_client(datastore: Path) -> None:
    succeeded(datastore, "R1", tags=("t",), origin_run_id="R0")
    run, other = aio.Run("Fan/R1"), sync.Run("Fan/R1")

    for name in (
        *("status", "finished", "successful", "created_at", "finished_at", "origin_pathspec"),
        *("tags", "user_tags", "system_tags"),
    ):
        assert await getattr(run, name) == getattr(other, name), name
    assert await run.code is run.trigger is None
    assert await run.is_in_namespace()
    assert await run.parent.is_in_namespace()
    assert [step.id async for step in run] == [step.id for step in other]
    assert await run.end_task == aio.Task("Fan/R1/end/0")


async def test_tags_are_changed(datastore: Path) -> None:
    succeeded(datastore, "R1", tags=("a",))
    run = aio.Run("Fan/R1")

    await run.add_tag("b")
    await run.add_tags(["c", "d"])
    await run.remove_tag("a")
    await run.remove_tags(["c"])
    await run.replace_tag("b", "e")
    await run.replace_tags(["d"], ["f"])

    assert await run.user_tags == {"e", "f"}


async def test_every_attribute_of_steps_and_tasks_is_that_of_the_other_client(
    datastore: Path,
) -> None:
    failed(datastore, "R1")
    succeeded(datastore, "R2")
    step, other_step = aio.Step("Fan/R2/work"), sync.Step("Fan/R2/work")

    assert await step.created_at == other_step.created_at
    assert await step.finished_at == other_step.finished_at
    assert [s.id async for s in step.parent_steps] == ["start"]
    assert [s.id async for s in step.child_steps] == ["join"]
    assert await step.control_task is step.environment_info is None
    assert [task async for task in step.control_tasks()] == []
    assert await step.task == aio.Task("Fan/R2/work/0")
    for pathspec in ("Fan/R1/work/1", "Fan/R2/work/1", "Fan/R2/end/0"):
        task, other = aio.Task(pathspec), sync.Task(pathspec)
        for name in (
            *("status", "finished", "successful", "reused", "created_at", "finished_at"),
            *("current_attempt", "exception", "index", "stdout", "stderr", "metadata_dict"),
            *("stdout_size", "stderr_size", "metadata", "runtime_name"),
        ):
            assert await getattr(task, name) == getattr(other, name), name
        assert [t.pathspec async for t in task.parent_tasks] == [
            t.pathspec for t in other.parent_tasks
        ]
        assert [t.pathspec async for t in task.child_tasks] == [
            t.pathspec for t in other.child_tasks
        ]
        assert [line async for line in task.loglines("stdout")] == list(other.loglines("stdout"))
        assert [p async for p in task.parent_task_pathspecs] == list(other.parent_task_pathspecs)
        assert [p async for p in task.child_task_pathspecs] == list(other.child_task_pathspecs)
        assert await task.code is task.environment_info is None
        assert task.parent.parent.parent == aio.Flow("Fan")
    assert await aio.Task("Fan/R1/work/1").exception == FAILURE
    assert await aio.Task("Fan/R1/work/1", attempt=0).stderr == "first try\n"


async def test_artifacts_are_described_and_loaded(datastore: Path) -> None:
    succeeded(datastore, "R1")
    task = aio.Task("Fan/R1/end/0")

    assert [a.id for a in await task.artifacts] == ["total", "name"]
    assert [a.id async for a in task] == ["total", "name"]
    artifact, other = task["name"], sync.DataArtifact("Fan/R1/end/0/name")
    for name in ("data", "sha", "size", "type", "preview", "finished_at", "created_at"):
        assert await getattr(artifact, name) == getattr(other, name), name
    assert artifact.parent == task
    assert await aio.DataArtifact("Fan/R1/end/0/total").data == 6


async def test_another_reader_can_be_given(datastore: Path, tmp_path: Path) -> None:
    succeeded(tmp_path / "other", "R7")

    with Reader.at(str(tmp_path / "other")) as reader:
        run = await aio.Client(reader=reader)["Fan"].latest_run
        assert run is not None
        assert await anext(run.steps()) == aio.Step("Fan/R7/end")
        assert await aio.Flow("Fan", reader=reader)["R7"]["end"]["0"].data.total == 6


@pytest.mark.parametrize("name", ["Client", "Flow", "Run", "Step", "Task", "DataArtifact"])
def test_the_two_clients_have_the_same_names(name: str) -> None:
    def public(cls: type) -> set[str]:
        return {n for n, _ in inspect.getmembers(cls) if not n.startswith("_")}

    assert public(getattr(sync, name)) - public(getattr(aio, name)) <= {"mro"}
