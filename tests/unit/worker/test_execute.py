import io
import os
import pickle
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.errors import FlowError
from engine.flow.caught import CaughtFailure
from engine.flow.graph import Transition
from engine.stores.artifacts import item_bytes, load_item
from engine.stores.manifest import Entry, Manifest
from engine.worker.context import TaskContext
from tests.unit.worker.flows import Shapes, Trouble
from tests.unit.worker.harness import Bench, in_foreach, loose_graph, whole_list


@pytest.fixture
def shapes(tmp_path: Path) -> Bench:
    bench = Bench(Shapes, tmp_path)
    bench.with_parameters({"alpha": 7, "constant": "stays"})
    return bench


@pytest.fixture
def trouble(tmp_path: Path) -> Bench:
    return Bench(Trouble, tmp_path, loose_graph(Trouble, "forgets"))


# -- what a failure leaves ------------------------------------------------------------------------


def test_a_traceback_goes_to_the_tasks_stderr_once(
    trouble: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = trouble.failure("raises")
    err = capsys.readouterr().err
    assert err == failure.traceback
    assert err.startswith("Traceback (most recent call last):\n  File ")
    assert err.endswith("ValueError: bad value\n")
    assert "engine/worker" not in err


def test_a_fault_that_no_line_of_the_users_raised_is_told_without_frames_of_ours(
    trouble: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = trouble.failure("forgets")
    err = capsys.readouterr().err
    assert err == failure.traceback == f"{failure.type}: {failure.message}\n"


def test_a_step_that_closed_its_stderr_still_reports(
    trouble: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    assert trouble.failure("raises").message == "bad value"
    monkeypatch.setattr(sys, "stderr", None)
    assert trouble.failure("raises").message == "bad value"


# -- what a step leaves ----------------------------------------------------------------------------


def test_a_manifest_lists_what_the_step_set_and_the_parameters(shapes: Bench) -> None:
    start = shapes.manifest("start")
    assert shapes.values(start) == {
        "alpha": 7,
        "constant": "stays",
        "kept": [1, 2, 3],
        "count": 1,
        "gone": "soon",
    }
    assert start.transition == Transition(("fan", "other"))
    assert (start.flow, start.run_id, start.step, start.task_id) == ("Shapes", "run", "start", "0")


def test_an_untouched_artifact_is_passed_on_without_being_read(shapes: Bench) -> None:
    start = shapes.manifest("start")
    for path in Path(shapes.blobs.root).rglob("*"):
        assert not path.is_file(), "all values of this flow are small"
    other = shapes.manifest("other", [start])
    assert other.artifacts["kept"] == start.artifacts["kept"]
    assert shapes.values(other)["count"] == 2
    assert "gone" not in other.artifacts


def test_a_missing_blob_is_no_fault_until_it_is_asked_for(shapes: Bench) -> None:
    start = shapes.manifest("start")
    entries = {**start.artifacts, "kept": _lost(start, "kept"), "count": _lost(start, "count")}
    broken = Manifest("Shapes", "run", "start", "0", 0, entries)
    assert shapes.manifest("fan", [broken]).artifacts["kept"].digest == "0" * 64
    failure = shapes.failure("other", [broken])
    assert failure.code == "blob-not-found"
    assert "self.count += 1" in failure.where


def _lost(manifest: Manifest, name: str) -> Entry:
    return replace(manifest.artifacts[name], inline=None, digest="0" * 64)


def test_a_foreach_stores_its_items_one_by_one(shapes: Bench) -> None:
    fan = shapes.manifest("fan", [shapes.manifest("start")])
    assert fan.transition == Transition(("item",), 3)
    assert fan.items is not None
    assert [load_item(fan.items, i, shapes.blobs) for i in range(3)] == ["a", "b", "c"]


@pytest.mark.parametrize("whole", [False, True])
def test_a_child_of_a_foreach_gets_its_own_item(shapes: Bench, whole: bool) -> None:
    start = shapes.manifest("start")
    fan = shapes.manifest("fan", [start])
    assert fan.items is not None
    item = whole_list(fan) if whole else item_bytes(fan.items, 1, shapes.blobs)
    fields = {**in_foreach("fan", 1, 3, item), "items_whole": [whole], "attempt": 2}
    child = shapes.values(shapes.manifest("item", [fan], **fields))
    assert child["seen"] == ("b", 1, [(1, 3, "b")], 7, "stays")
    assert child["facts"] == ("Shapes/run/item/1", 2, ["alpha"])


@pytest.mark.parametrize("bundled", [False, True])
def test_a_join_reads_its_inputs_in_order_and_merges(shapes: Bench, bundled: bool) -> None:
    start = shapes.manifest("start")
    fan = shapes.manifest("fan", [start])
    assert fan.items is not None
    children = [
        shapes.manifest(
            "item", [fan], **in_foreach("fan", i, 3, item_bytes(fan.items, i, shapes.blobs))
        )
        for i in range(3)
    ]
    if bundled:
        joined = shapes.manifest("collect", inputs_digest=shapes.bundle(children))
    else:
        joined = shapes.manifest("collect", children)
    values = shapes.values(joined)
    assert values["seen"] == ["a", "b", "c"]
    assert values["indices"] == [0, 1, 2]
    assert values["count"] == 1
    assert "facts" not in values
    other = shapes.manifest("other", [start])
    both = shapes.values(shapes.manifest("both", [joined, other]))
    assert both["counts"] == (1, 2)
    assert "kept" not in both, "a join begins with the parameters alone"
    assert both["alpha"] == 7


def test_the_item_of_a_closed_foreach_is_explained(shapes: Bench) -> None:
    fan = shapes.manifest("fan", [shapes.manifest("start")])
    spec = shapes.spec("collect", [fan])
    inputs = TaskContext(Shapes, spec, shapes.blobs).inputs("fan")
    assert inputs[0].index == 0
    with pytest.raises(FlowError, match="not passed on to its join"):
        _ = inputs[0].input


def test_the_last_step_leads_nowhere(shapes: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    both = shapes.manifest("both", _branches(shapes))
    assert shapes.manifest("end", [both]).transition == Transition(())
    assert capsys.readouterr().out == "(1, 2)\n"


def _branches(shapes: Bench) -> list[Manifest]:
    start = shapes.manifest("start")
    other = shapes.manifest("other", [start])
    collect = Manifest("Shapes", "run", "collect", "0", 0, start.artifacts)
    return [collect, other]


def test_a_manifest_too_large_for_the_channel_goes_as_a_blob(trouble: Bench) -> None:
    report = trouble.run("large")
    assert (report.manifest, report.failure) == (None, None)
    assert len(trouble.manifest("large").artifacts) == 200


def test_the_environment_of_the_decorator_is_set(trouble: Bench) -> None:
    variables = {"AFLOW_TEST_VARIABLE": "set"}
    try:
        manifest = trouble.manifest("environment", environment=variables)
        assert trouble.values(manifest)["value"] == "set"
    finally:
        del os.environ["AFLOW_TEST_VARIABLE"]


# -- how a step fails ------------------------------------------------------------------------------


def test_an_exception_is_told_with_its_place(trouble: Bench) -> None:
    failure = trouble.failure("raises")
    assert (failure.code, failure.type, failure.message) == (
        "task-failed",
        "ValueError",
        "bad value",
    )
    assert failure.retryable
    assert failure.where.endswith('raise ValueError("bad value")')


@pytest.mark.parametrize(
    ("step", "code", "message"),
    [
        ("exits", "task-failed", "step 'exits' called sys.exit(0)"),
        ("forgets", "flow", "step 'forgets' ended without calling self.next"),
        ("strays", "flow", "step 'strays' went to exits; its source says forgets"),
        ("fans_out_over_nothing", "flow", "over self.nothing, which has no items"),
        ("cannot_be_stored", "value-unstorable", "artifact 'lock' of step 'cannot_be_stored'"),
        ("takes_too_long", "task-timeout", "ran longer than its @timeout of 0.05 s"),
    ],
)
def test_a_failure_says_what_the_step_did(
    trouble: Bench, step: str, code: str, message: str
) -> None:
    failure = trouble.failure(step, timeout_s=0.05 if step == "takes_too_long" else None)
    assert failure.code == code
    assert message in failure.message
    assert failure.retryable == (code in ("task-failed", "task-timeout"))


def test_a_step_that_is_in_time_is_left_alone(trouble: Bench) -> None:
    assert trouble.manifest("is_in_time", timeout_s=30).transition == Transition(("forgets",))


def test_an_iterator_is_used_up_once_and_kept_as_a_list(trouble: Bench) -> None:
    manifest = trouble.manifest("fans_out_over_an_iterator")
    assert manifest.transition == Transition(("forgets",), 3)
    assert trouble.values(manifest)["numbers"] == [0, 1, 2]


# -- @catch ----------------------------------------------------------------------------------------


def test_catch_leaves_the_failure_and_goes_on(
    trouble: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = trouble.manifest("caught")
    values = trouble.values(manifest)
    caught = values["failure"]
    assert isinstance(caught, CaughtFailure)
    assert (caught.type, caught.exception) == ("KeyError", "'missing'")
    assert "raise KeyError" in str(caught.stacktrace)
    assert manifest.caught
    assert manifest.transition == Transition(("forgets",))
    assert "KeyError: 'missing'" in capsys.readouterr().err
    assert "unsafe" not in values, "what cannot be stored is left out"


def test_catch_waits_for_the_last_attempt(trouble: Bench) -> None:
    assert trouble.failure("caught", last_attempt=False).type == "KeyError"


def test_catch_says_so_when_nothing_was_caught(
    trouble: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = trouble.manifest("not_caught")
    assert trouble.values(manifest)["failure"] is None
    assert not manifest.caught
    assert capsys.readouterr().err == ""


def test_catch_without_a_name_only_goes_on(trouble: Bench) -> None:
    manifest = trouble.manifest("caught_quietly")
    assert manifest.caught
    assert not manifest.artifacts


def test_a_fallback_runs_no_user_code(trouble: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = trouble.manifest("caught", fallback="killed by SIGKILL", attempt=1)
    caught = trouble.values(manifest)["failure"]
    assert isinstance(caught, CaughtFailure)
    assert (caught.exception, caught.stacktrace) == ("killed by SIGKILL", None)
    assert list(manifest.artifacts) == ["failure"]
    assert "killed by SIGKILL" in capsys.readouterr().err


def test_a_fallback_without_a_catch_is_a_failure(trouble: Bench) -> None:
    assert "has no @catch" in trouble.failure("raises", fallback="killed").message


def test_what_was_caught_survives_pickling() -> None:
    caught = CaughtFailure("ValueError", "text", "trace")
    again = pickle.loads(pickle.dumps(caught))
    assert again == caught
    assert (str(again), repr(again)) == ("trace", "trace")
    assert str(CaughtFailure("X", "y")) == "[no stacktrace]\nX: y"
    assert len({again, caught, again}) == 2
