"""A run as JSON, an object a line on stdout: schema "aflow/run/1". The last line is the result.

Fields are added, never renamed or removed. Times are ISO 8601 in UTC.
"""

import json
from typing import Any

from engine.cli import times
from engine.cli.console import Console
from engine.cli.resume_plan import plan_fields
from engine.errors import Failure
from engine.ids import TaskKey
from engine.scheduler.progress import (
    ResumePlanned,
    RunBegan,
    RunDone,
    RunEvent,
    TaskAttemptFailed,
    TaskDone,
    TaskLaunched,
    TaskOutput,
)

SCHEMA = "aflow/run/1"
Fields = dict[str, Any]  # Any: JSON


class JsonConsole(Console):
    """An observer that writes events as JSON, and nothing else."""

    def observe(self, event: RunEvent) -> None:
        """Take one event; its line is written 20 ms later."""
        self.tally.observe(event)
        if isinstance(event, RunDone):
            self.close()  # the result itself is written by `summary`
            return
        self.look.out.pending.append(json.dumps({"schema": SCHEMA, **fields_of(event)}))
        if self._flush_at is None:
            self._flush_soon()

    def result(self, exit_code: int) -> None:
        """Write the last line."""
        tally, ended = self.tally, self.tally.ended
        failure = ended.failure if ended else None
        if ended is not None and ended.status == "failed" and not failure and tally.failures:
            failure = tally.failures[0][1]
        line = {
            "schema": SCHEMA,
            "event": "result",
            "at": times.iso(tally.now_us),
            "flow": tally.flow,
            "run_id": tally.run_id,
            "status": ended.status if ended else None,
            "reason": ended.reason if ended else None,
            "exit_code": exit_code,
            "duration_s": (tally.now_us - tally.began_us) / 1_000_000,
            "tasks": {
                "done": tally.done,
                "reused": tally.reused,
                "failed": tally.failed,
                "cancelled": tally.cancelled,
            },
            "failed_task": str(ended.failed_task) if ended and ended.failed_task else None,
            "error": failure_fields(failure) if failure else None,
        }
        self.look.out.pending.append(json.dumps(line))
        self.close()


def fields_of(event: RunEvent) -> Fields:
    """One event's fields."""
    match event:
        case ResumePlanned():
            planned = {k: v for k, v in plan_fields(event).items() if k != "schema"}
            return {"event": "resume-planned", **planned}
        case RunBegan(flow, run_id, at_us, origin, warnings):
            return {
                "event": "run-began",
                "at": times.iso(at_us),
                "flow": flow,
                "run_id": run_id,
                "origin_run_id": origin,
                **({"warnings": list(warnings)} if warnings else {}),
            }
        case TaskLaunched(task, attempt, at_us):
            return {"event": "task-launched", "at": times.iso(at_us), **_task(task, attempt)}
        case TaskOutput(task, attempt, stream, lines):
            shown = [[times.iso(at_us), text] for at_us, text in lines]
            return {
                "event": "task-output",
                **_task(task, attempt),
                "stream": stream,
                "lines": shown,
            }
        case TaskDone():
            return {
                "event": "task-done",
                "at": times.iso(event.ended_us),
                **_task(event.task, event.attempt),
                "started_at": times.iso(event.started_us),
                "duration_s": max(0, event.ended_us - event.started_us) / 1_000_000,
                "next": list(event.transition.targets),
                "fanout": event.transition.fanout,
                "reused": event.reused,
                "caught": event.caught,
            }
        case TaskAttemptFailed():
            return {
                "event": "task-failed",
                "at": times.iso(event.ended_us),
                **_task(event.task, event.attempt),
                "started_at": times.iso(event.started_us),
                "retry_in_s": event.retry_in_s,
                "error": failure_fields(event.failure),
            }
        case RunDone(status, at_us, reason):
            return {
                "event": "run-done",
                "at": times.iso(at_us),
                "status": status,
                "reason": reason,
            }


def failure_fields(failure: Failure) -> Fields:
    """A failure in the shape of every JSON error: code, message, hint, details."""
    details = {
        "type": failure.type,
        "where": failure.where,
        "traceback": failure.traceback,
        "log_tail": list(failure.log_tail),
    }
    return {
        "code": failure.code,
        "message": failure.message,
        "hint": failure.hint or None,
        "details": {k: v for k, v in details.items() if v},
    }


def _task(task: TaskKey, attempt: int) -> Fields:
    return {"step": task.step, "task_id": task.task_id, "attempt": attempt}
