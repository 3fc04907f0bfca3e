"""A run as JSON."""

from engine.cli.ndjson import JsonConsole
from tests.cli.events import WELL, Shown, began, ended, failed, lines_of
from tests.unit.client.stored import FAILURE, work


def test_every_event_is_a_line_of_json_and_the_last_is_the_result() -> None:
    shown = Shown(JsonConsole).tell(WELL)
    assert isinstance(shown.console, JsonConsole)
    shown.console.result(0)

    lines = lines_of(shown)
    assert [line["event"] for line in lines] == [
        *("run-began", "task-launched", "task-done", "task-launched", "task-launched"),
        *("task-output", "task-output", "task-done", "task-done", "task-launched", "task-done"),
        *("task-launched", "task-done", "result"),
    ]
    assert {line["schema"] for line in lines} == {"aflow/run/1"}
    assert shown.err.getvalue() == ""
    assert lines[0] == {
        "schema": "aflow/run/1",
        "event": "run-began",
        "at": "2026-07-25T17:20:00.000Z",
        "flow": "Fan",
        "run_id": "R1",
        "origin_run_id": None,
    }
    assert lines[2] == {
        "schema": "aflow/run/1",
        "event": "task-done",
        "at": "2026-07-25T17:20:02.000Z",
        "step": "start",
        "task_id": "0",
        "attempt": 0,
        "started_at": "2026-07-25T17:20:01.000Z",
        "duration_s": 1.0,
        "next": ["work"],
        "fanout": 2,
        "reused": False,
        "caught": False,
    }
    assert lines[5]["lines"] == [
        ["2026-07-25T17:20:01.000Z", "a"],
        ["2026-07-25T17:20:01.000Z", "b"],
    ]
    assert lines[-1] == {
        "schema": "aflow/run/1",
        "event": "result",
        "at": "2026-07-25T17:20:04.000Z",
        "flow": "Fan",
        "run_id": "R1",
        "status": "succeeded",
        "reason": None,
        "exit_code": 0,
        "duration_s": 4.0,
        "tasks": {"done": 5, "reused": 0, "failed": 0, "cancelled": 0},
        "failed_task": None,
        "error": None,
    }


def test_a_failed_run_s_result_holds_the_error() -> None:
    shown = Shown(JsonConsole).tell(
        [began(), failed(work(1, 2)), ended("failed", failed_task=work(1, 2))]
    )
    assert isinstance(shown.console, JsonConsole)
    shown.console.result(1)

    failure, result = lines_of(shown)[1:]
    assert (failure["event"], failure["retry_in_s"]) == ("task-failed", None)
    assert (result["exit_code"], result["failed_task"]) == (1, "work/1")
    assert result["error"] == failure["error"]
    assert result["error"] == {
        "code": "task-failed",
        "message": FAILURE.message,
        "hint": None,
        "details": {
            "type": "ValueError",
            "where": FAILURE.where,
            "traceback": FAILURE.traceback,
            "log_tail": ["one", "two"],
        },
    }
