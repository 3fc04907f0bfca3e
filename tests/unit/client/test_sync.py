"""The client reads what a driver has left."""

import copy
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine import client
from engine.client import Client, DataArtifact, Flow, Run, Step, Task
from engine.errors import DatastoreError, NotFoundError, UnsafeNameError, UsageError
from engine.flow.graph import Transition
from tests.unit.client import stored
from tests.unit.client.stored import BEGAN_US, END, START, Stored, failed, succeeded, work

BEGAN = datetime(2026, 7, 25, 17, 20, tzinfo=UTC)


def test_the_instant_of_the_tests_is_what_it_says() -> None:
    assert datetime.fromtimestamp(BEGAN_US / 1e6, UTC) == BEGAN


def test_a_value_is_reached_from_the_flow_in_one_expression(datastore: Path) -> None:
    succeeded(datastore, "R1")

    run = Flow("Fan").latest_run

    assert run is not None
    assert [task.data.x for task in run["work"]] == [0, 2, 4]


def test_runs_come_newest_first(datastore: Path) -> None:
    for number in range(3):
        succeeded(datastore, f"R{number}", began_us=BEGAN_US + number)

    assert [run.id for run in Flow("Fan")] == ["R2", "R1", "R0"]


def test_a_list_longer_than_a_page_is_whole(datastore: Path) -> None:
    run = Stored(datastore, "R1")
    for index in range(1203):
        run.launch(work(index, 1203))
    run.die()

    assert [task.index for task in Run("Fan/R1")["work"]] == list(range(1203))


def test_one_int_of_each_of_a_thousand_tasks_is_read(datastore: Path) -> None:
    run = Stored(datastore, "R1")
    for index in range(1000):
        values = {"x": index, "alpha": 0.5, "names": ["a", "b"], "who": "world"}
        run.succeed(work(index, 1000), values, goes=Transition(("join",)))
    run.end("succeeded")
    run.die()

    latest = Flow("Fan").latest_run
    assert latest is not None
    assert [task.data.x for task in latest["work"]] == list(range(1000))


def test_the_latest_successful_run_passes_over_failed_ones(datastore: Path) -> None:
    succeeded(datastore, "R1")
    failed(datastore, "R2", began_us=BEGAN_US + 1)

    flow = Flow("Fan")

    assert flow.latest_run == Run("Fan/R2")
    assert flow.latest_successful_run == Run("Fan/R1")


def test_runs_are_chosen_by_user_tags_and_system_tags(datastore: Path) -> None:
    succeeded(datastore, "R1", tags=("good", "big"))
    succeeded(datastore, "R2", tags=("good",))

    assert [run.id for run in Flow("Fan").runs("good", "big")] == ["R1"]
    assert {run.id for run in Flow("Fan").runs("user:ada")} == {"R1", "R2"}
    assert list(Flow("Fan").runs("nope")) == []


def test_a_run_that_ended_well_says_so(datastore: Path) -> None:
    succeeded(datastore, "R1")

    run = Run("Fan/R1")

    assert (run.status, run.finished, run.successful) == ("succeeded", True, True)
    assert run.created_at == BEGAN
    assert run.finished_at == BEGAN + timedelta(seconds=6)
    assert run.end_task == Task("Fan/R1/end/0")
    assert run.data is not None
    assert run.data.name == "fan"
    assert run.code is None
    assert run.trigger is None
    assert run.origin_pathspec is None


def test_a_failed_run_is_finished_and_not_successful(datastore: Path) -> None:
    failed(datastore, "R1")

    run = Run("Fan/R1")

    assert (run.status, run.finished, run.successful) == ("failed", True, False)
    assert run.end_task is None
    assert run.data is None


def test_a_run_whose_driver_died_is_interrupted_and_not_running_for_ever(datastore: Path) -> None:
    run = Stored(datastore, "R1")
    run.launch(START)
    alive = Run("Fan/R1").status
    run.die()

    assert (alive, Run("Fan/R1").status) == ("running", "interrupted")
    assert Run("Fan/R1").finished
    assert Run("Fan/R1").finished_at is None


def test_a_run_that_is_held_shows_its_progress_without_being_opened_again(datastore: Path) -> None:
    run = Stored(datastore, "R1")
    run.launch(START)
    seen = Run("Fan/R1")
    task = seen["start"].task
    before = (seen.finished, task.finished, task.finished_at)
    run.succeed(START, {"items": []}, goes=Transition(("work",), 0))
    run.end("succeeded")
    run.die()

    assert before == (False, False, None)
    assert (seen.finished, task.finished, task.successful) == (True, True, True)
    assert task.data.items == []


def test_steps_come_newest_first_and_by_name(datastore: Path) -> None:
    succeeded(datastore, "R1")

    run = Run("Fan/R1")

    assert [step.id for step in run] == ["end", "join", "work", "start"]
    assert run["work"] == Step("Fan/R1/work")
    assert "work" in run
    assert "nope" not in run
    assert [step.id for step in run.steps("runtime:dev")] == ["end", "join", "work", "start"]
    assert list(run.steps("nope")) == []


def test_steps_know_their_neighbours_and_their_times(datastore: Path) -> None:
    succeeded(datastore, "R1")

    step = Run("Fan/R1")["work"]

    assert [s.id for s in step.parent_steps] == ["start"]
    assert [s.id for s in step.child_steps] == ["join"]
    assert step.created_at == BEGAN + timedelta(seconds=1)
    assert step.finished_at == BEGAN + timedelta(seconds=4)
    assert step.control_task is None
    assert list(step.control_tasks()) == []
    assert step.environment_info is None
    assert [t.id for t in step.tasks("runtime:dev")] == ["0", "1", "2"]
    assert list(step.tasks("nope")) == []


def test_a_step_with_a_task_under_way_has_not_finished(datastore: Path) -> None:
    run = Stored(datastore, "R1")
    run.succeed(START, {}, goes=Transition(("work",), 1))
    run.launch(work(0, 1))
    finished = Step("Fan/R1/work").finished_at
    run.die()

    assert finished is None


def test_tasks_know_what_came_before_and_after_them(datastore: Path) -> None:
    succeeded(datastore, "R1")

    run = Run("Fan/R1")

    assert [t.pathspec for t in run["work"]["1"].parent_tasks] == ["Fan/R1/start/0"]
    assert list(run["work"]["1"].child_task_pathspecs) == ["Fan/R1/join/0"]
    assert [t.id for t in run["start"].task.child_tasks] == ["0", "1", "2"]
    assert list(run["join"].task.parent_task_pathspecs) == [f"Fan/R1/work/{i}" for i in range(3)]
    assert list(run["start"].task.parent_tasks) == []


def test_a_task_knows_its_index_inside_a_foreach_and_none_outside(datastore: Path) -> None:
    succeeded(datastore, "R1")

    assert Task("Fan/R1/work/2").index == 2
    assert Task("Fan/R1/end/0").index is None


def test_a_task_tells_what_it_printed(datastore: Path) -> None:
    succeeded(datastore, "R1")

    task = Task("Fan/R1/end/0")

    assert task.stdout == "done\nbye\n"
    assert task.stdout_size == 9
    assert (task.stderr, task.stderr_size) == ("", 0)
    lines = list(task.loglines("stdout"))
    assert [text for _, text in lines] == ["done", "bye"]
    assert lines[1][0] - lines[0][0] == timedelta(seconds=1)
    with pytest.raises(ValueError, match="'stdin'"):
        next(task.loglines("stdin"))


def test_a_failed_task_tells_why_as_text(datastore: Path) -> None:
    failed(datastore, "R1")

    task = Task("Fan/R1/work/1")

    assert (task.status, task.finished, task.successful) == ("failed", True, False)
    assert task.exception == stored.FAILURE
    assert task.current_attempt == 1
    assert list(task) == []
    assert Task("Fan/R1/work/0").exception is None


def test_the_last_attempt_is_read_and_an_earlier_one_when_asked_for(datastore: Path) -> None:
    failed(datastore, "R1")

    assert Task("Fan/R1/work/1").stderr == "second try\n"
    first = Task("Fan/R1/work/1", attempt=0)
    assert (first.stderr, first.current_attempt) == ("first try\n", 0)
    with pytest.raises(NotFoundError, match="no attempt 7"):
        Task("Fan/R1/work/1", attempt=7)


def test_artifacts_are_described_without_being_loaded(datastore: Path) -> None:
    succeeded(datastore, "R1")

    task = Task("Fan/R1/end/0")

    assert [artifact.id for artifact in task] == ["total", "name"]
    assert len(task.artifacts) == 2
    assert task.artifacts._fields == ("total", "name")
    assert set(task.artifacts._asdict()) == {"total", "name"}
    artifact = task.artifacts.name
    assert (artifact.type, artifact.preview, artifact.size) == ("str", "'fan'", 5)
    assert len(artifact.sha) == 64
    assert artifact.finished_at == artifact.created_at == task.finished_at
    assert artifact == task["name"] == DataArtifact("Fan/R1/end/0/name")
    assert artifact.data == "fan"
    assert "name" in task
    assert "nope" not in task


def test_data_lists_its_names_and_says_which_are_there(datastore: Path) -> None:
    succeeded(datastore, "R1")

    data = Task("Fan/R1/end/0").data

    assert "total" in data
    assert dir(data) == ["name", "total"]
    assert "total, name" in repr(data)
    with pytest.raises(AttributeError, match="no artifact 'nope'") as caught:
        _ = data.nope
    assert isinstance(caught.value, NotFoundError)
    assert caught.value.hint == "it has total, name"


def test_a_task_that_committed_nothing_has_no_artifacts(datastore: Path) -> None:
    failed(datastore, "R1")

    with pytest.raises(NotFoundError) as caught:
        _ = Task("Fan/R1/work/1")["x"]
    assert caught.value.hint == "it has none"


def test_facts_of_a_task_are_named_as_in_metaflow(datastore: Path) -> None:
    succeeded(datastore, "R1", origin_run_id="R0")

    task = Task("Fan/R1/end/0")

    assert task.metadata_dict == {"attempt": "0", "attempt_ok": "True", "origin-run-id": "R0"}
    assert task.metadata[0].task == task
    assert task.created_at == BEGAN + timedelta(seconds=5)
    assert task.runtime_name == "dev"
    assert task.code is None
    assert task.environment_info is None
    assert not task.reused
    assert Run("Fan/R1").origin_pathspec == "Fan/R0"


def test_the_whole_datastore_is_walked_from_the_client(datastore: Path) -> None:
    succeeded(datastore, "R1")
    succeeded(datastore, "R2", flow="Other", user="bob")

    found = Client()

    assert found.flows == list(found) == [Flow("Fan")]
    assert "Fan" in found
    assert "Other" not in found
    assert found["Fan"].parent.flows == found.flows
    assert repr(found) == f"Client({str(datastore)!r})"
    assert [p.pathspec for p in _upward(DataArtifact("Fan/R1/end/0/total"))] == [
        "Fan/R1/end/0",
        "Fan/R1/end",
        "Fan/R1",
        "Fan",
    ]


def _upward(found: object) -> Iterator[Flow | Run | Step | Task]:
    while not isinstance(found, Flow):
        found = found.parent  # type: ignore[attr-defined]  # every kind but the client has one
        yield found  # type: ignore[misc]


def test_names_parts_and_membership_are_those_of_the_pathspec(datastore: Path) -> None:
    succeeded(datastore, "R1")

    task = Task("Fan/R1/work/1")

    assert (task.id, task.path_components) == ("1", ["Fan", "R1", "work", "1"])
    assert repr(task) == "Task('Fan/R1/work/1')"
    assert task in {Task("Fan/R1/work/1")}
    assert task != Task("Fan/R1/work/2")
    assert task != "Fan/R1/work/1"
    assert "R1" in Flow("Fan")
    assert "R9" not in Flow("Fan")
    assert "1" in Step("Fan/R1/work")
    assert "9" not in Step("Fan/R1/work")
    assert Flow("Fan")["R1"].id == "R1"
    assert Flow("Fan").created_at == BEGAN
    assert Flow("Fan").finished_at == BEGAN + timedelta(seconds=6)


@pytest.mark.parametrize(
    ("kind", "pathspec"),
    [
        (Flow, "Nope"),
        (Run, "Fan/nope"),
        (Step, "Fan/R1/nope"),
        (Task, "Fan/R1/work/9"),
        (DataArtifact, "Fan/R1/end/0/nope"),
    ],
)
def test_what_is_not_there_is_not_found(datastore: Path, kind: type, pathspec: str) -> None:
    succeeded(datastore, "R1")

    with pytest.raises(NotFoundError, match=pathspec.rpartition("/")[2]):
        kind(pathspec)


@pytest.mark.parametrize(
    ("kind", "pathspec", "error"),
    [
        (Run, "Fan", UsageError),
        (Flow, "Fan/R1", UsageError),
        (Run, "Fan/../R1", UsageError),
        (Run, "Fan/..", UnsafeNameError),
        (Run, "Fan/a\0b", UnsafeNameError),
        (Task, "a/b/c/d/e/f", UsageError),
    ],
)
def test_what_cannot_be_a_pathspec_is_refused(
    datastore: Path, kind: type, pathspec: str, error: type[Exception]
) -> None:
    succeeded(datastore, "R1")

    with pytest.raises(error):
        kind(pathspec)


@pytest.mark.parametrize("name", ["nope", "9"])
def test_an_index_that_is_not_there_is_not_found(datastore: Path, name: str) -> None:
    succeeded(datastore, "R1")

    with pytest.raises(NotFoundError):
        _ = Run("Fan/R1")[name]
    with pytest.raises(NotFoundError):
        _ = Step("Fan/R1/work")[name]


def test_objects_survive_pickling_and_are_read_anew(datastore: Path) -> None:
    succeeded(datastore, "R1")
    task = Task("Fan/R1/work/2")

    back = pickle.loads(pickle.dumps(task))
    with_run = copy.copy(Run("Fan/R1"))

    assert (back, back.data.x, with_run.status) == (task, 4, "succeeded")
    back._reader.close()
    with_run._reader.close()


def test_another_datastore_is_read_when_it_is_chosen(datastore: Path, tmp_path: Path) -> None:
    succeeded(datastore, "R1")
    elsewhere = tmp_path / "elsewhere"
    succeeded(elsewhere, "R2")

    assert client.get_metadata() == f"local@{datastore}"
    assert client.metadata(f"local@{elsewhere}") == f"local@{elsewhere}"
    assert Flow("Fan").latest_run == Run("Fan/R2")
    assert client.default_metadata() == f"local@{datastore}"
    assert Run("Fan/R1").successful
    with pytest.raises(DatastoreError, match="does not exist"):
        client.metadata(str(tmp_path / "nowhere"))


def test_the_reader_follows_the_settings(
    datastore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeeded(datastore, "R1")
    succeeded(tmp_path / "elsewhere", "R2")
    first = Flow("Fan").latest_run
    monkeypatch.setenv("AFLOW_DATASTORE", str(tmp_path / "elsewhere"))
    second = Flow("Fan").latest_run

    assert first is not None
    assert second is not None
    assert (first.id, second.id) == ("R1", "R2")
    assert first["end"].task.data.name == "fan"


def test_large_and_strange_values_come_back(datastore: Path) -> None:
    values = [{"x": {1, 2}}, {"x": "y" * 100_000}, {"x": replace(stored.FAILURE, message="z")}]
    succeeded(datastore, "R1", values=values)

    assert [task.data.x for task in Step("Fan/R1/work")] == [v["x"] for v in values]


def test_a_reused_task_says_so(datastore: Path) -> None:
    run = Stored(datastore, "R1")
    run.succeed(END, {"x": 1}, goes=Transition(()), reused=True)
    run.die()

    assert Task("Fan/R1/end/0").reused
