import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest

from engine.flow.current import Current, current


@pytest.fixture
def task() -> Iterator[Current]:
    current._bind(
        flow_name="F", run_id="R1", step_name="train", pathspec="F/R1/train/0", retry_count=0
    )
    yield current
    current._bind()


def test_outside_of_a_task_asking_says_so() -> None:
    assert not current.is_running_flow
    with pytest.raises(AttributeError, match=r"current\.run_id is known in a running step"):
        current.run_id  # noqa: B018
    assert current.get("run_id", "none") == "none"
    assert "run_id" not in current
    assert repr(current) == "<current: no task>"


def test_inside_of_a_task_facts_are_attributes(task: Current) -> None:
    assert task.is_running_flow
    assert (task.flow_name, task.retry_count) == ("F", 0)
    assert task.get("run_id") == "R1"
    assert "run_id" in task
    assert repr(task) == "<current: F/R1/train/0>"


def test_an_unknown_fact_tells_what_was_meant(task: Current) -> None:
    with pytest.raises(AttributeError, match=r"no 'runid' in this task \(did you mean 'run_id'"):
        task.runid  # noqa: B018
    with pytest.raises(AttributeError, match="it has flow_name, pathspec"):
        task.parallel_nodes_of_it_all  # noqa: B018
    assert task.get("project_name", "none") == "none"


def test_facts_cannot_be_set(task: Current) -> None:
    with pytest.raises(AttributeError, match="read-only"):
        task.run_id = "R2"


def test_task_and_run_are_objects_of_the_client_made_when_asked_for(
    task: Current, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = ModuleType("engine.client")
    client.Task = lambda pathspec: SimpleNamespace(pathspec=pathspec)  # type: ignore[attr-defined]
    client.Run = lambda pathspec: SimpleNamespace(pathspec=pathspec)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "engine.client", client)

    assert task.task.pathspec == "F/R1/train/0"
    assert task.run.pathspec == "F/R1"
    assert task.run is task.run


def test_outside_of_a_task_there_is_no_client_object() -> None:
    with pytest.raises(AttributeError, match="known in a running step"):
        current.task  # noqa: B018
