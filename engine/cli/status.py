"""`aflow status RUN`: how a run is doing, step by step; what failed first."""

import json
import sys
from typing import Any

import click
from msgspec import Struct

from engine.cli import times, waiting
from engine.cli.clock import now_us
from engine.cli.escapes import safe
from engine.cli.options import session, verb
from engine.cli.references import find_run
from engine.cli.report import exit_code_of, failure_lines
from engine.cli.tables import table, terminal_width
from engine.client.reader import Reader
from engine.errors import Failure, TaskCancelledError
from engine.scheduler.progress import DETACHED
from engine.stores.metadata.base import RunRecord, TaskRecord

CANCELLED = TaskCancelledError.code
_RUNNING = frozenset(("running", "retrying"))


class StepSum(Struct):
    """One step's tasks, added up."""

    done: int = 0
    running: int = 0
    failed: int = 0
    reused: int = 0
    busy_us: int = 0
    slowest_us: int = 0

    def add(self, task: TaskRecord) -> None:
        self.done += task.status == "succeeded"
        self.failed += task.status == "failed"
        self.running += task.status in _RUNNING
        self.reused += task.reused
        if task.ended_us and task.started_us and not task.reused:
            took_us = max(0, task.ended_us - task.started_us)
            self.busy_us += took_us
            self.slowest_us = max(self.slowest_us, took_us)


class Summary(Struct):
    """A run and what became of its tasks, in one pass over them."""

    run: RunRecord
    status: str
    steps: dict[str, StepSum]
    first_failed: TaskRecord | None

    @classmethod
    def read(cls, reader: Reader, run: RunRecord) -> "Summary":
        steps: dict[str, StepSum] = {}
        first: TaskRecord | None = None
        for task in reader.tasks(run.flow, run.run_id):
            steps.setdefault(task.step, StepSum()).add(task)
            if task.status == "failed" and (
                first is None or (task.ended_us or 0) < (first.ended_us or 0)
            ):
                first = task
        return cls(run, reader.status(run), steps, first)

    @property
    def failure(self) -> Failure | None:
        return Reader.failure(self.first_failed) if self.first_failed else None

    @property
    def exit_code(self) -> int:
        """What `aflow run` ended with; 0 while it runs."""
        if self.status == "interrupted":
            reason = self.run.reason or ""
            return 143 if "SIGTERM" in reason or "SIGHUP" in reason else 130
        if self.status != "failed":
            return 0
        return exit_code_of(self.failure.code) if self.failure else 1


@verb(
    "status",
    examples="aflow status @latest\naflow status 01JF3 --json\naflow status -1 --exit-code",
    json=True,
)
@click.argument("run", default="@latest")
@click.option("--exit-code", "as_exit", is_flag=True, help="End with the exit code of the run.")
def command(run: str, as_exit: bool) -> int:
    """Say how RUN is doing: its steps, what it reused, what failed first. [default: @latest]"""
    now = session()
    with Reader.open(now.config) as reader:
        summary = Summary.read(reader, find_run(reader, run, flow=now.flow_name))
        began = reader.began(summary.run.flow, summary.run.run_id)
    queues = began.code.get("queues", ()) if began and summary.status == "running" else ()
    waits = waiting.of_run(now.config, summary.run.run_id, queues) if queues else None
    if now.json:
        print(json.dumps(_fields(summary) | (dict(waits.fields) if waits else {})))
    else:
        _print(summary)
        for line in waits.lines if waits else ():
            print(line)
    return summary.exit_code if as_exit else 0


def _print(summary: Summary) -> None:
    run = summary.run
    end_us = run.ended_us or (now_us() if summary.status == "running" else None)
    took = f" in {times.duration(end_us - run.created_us)}" if end_us else ""
    print(f"{run.flow}/{run.run_id}  {summary.status}{took}")
    who = safe(f"{run.user or 'nobody'} on {run.host}")
    print(f"  began {times.clock(run.created_us)[:-4]} by {who}")
    if run.origin_run_id:
        print(f"  resumed {safe(run.origin_run_id)}")
    if run.tags:
        print(f"  tags: {safe(', '.join(run.tags))}")
    if run.reason and summary.status != "failed":
        print(f"  reason: {safe(run.reason)}")
    print()
    rows = (
        (
            name,
            f"{s.done:,}",
            f"{s.running:,}" if s.running else "",
            f"{s.failed:,}" if s.failed else "",
            f"{s.reused:,}" if s.reused else "",
            times.duration(s.busy_us),
            times.duration(s.slowest_us),
        )
        for name, s in summary.steps.items()
    )
    head = ("STEP", "DONE", "RUNNING", "FAILED", "REUSED", "TASK TIME", "SLOWEST")
    for line in table(head, rows, width=terminal_width(is_tty=sys.stdout.isatty())):
        print(line)
    failure = summary.failure
    was_ended = summary.status == "interrupted" and failure and failure.code == CANCELLED
    if failure and summary.first_failed and not was_ended:
        print()
        task = f"{summary.first_failed.step}/{summary.first_failed.task_id}"
        print(f"failed first: {task}")
        for line in failure_lines(failure, run=f"{run.flow}/{run.run_id}"):
            print(line)
    elif summary.status == "interrupted":
        verb = "attach" if (run.reason or "").startswith(DETACHED) else "resume"
        print(f"\n{verb} with: aflow {verb} {run.run_id}")


def _fields(summary: Summary) -> dict[str, Any]:  # Any: JSON
    from engine.cli.ndjson import failure_fields

    run, first = summary.run, summary.first_failed
    return {
        "schema": "aflow/status/1",
        "flow": run.flow,
        "run_id": run.run_id,
        "status": summary.status,
        "exit_code": None if summary.status == "running" else summary.exit_code,
        "created_at": times.iso(run.created_us),
        "ended_at": times.iso(run.ended_us) if run.ended_us else None,
        "user": run.user,
        "tags": list(run.tags),
        "origin_run_id": run.origin_run_id,
        "reason": run.reason,
        "steps": [
            {
                "step": name,
                "done": s.done,
                "running": s.running,
                "failed": s.failed,
                "reused": s.reused,
                "task_time_s": s.busy_us / 1_000_000,
                "slowest_s": s.slowest_us / 1_000_000,
            }
            for name, s in summary.steps.items()
        ],
        "failed_task": f"{first.step}/{first.task_id}" if first else None,
        "error": failure_fields(summary.failure) if summary.failure else None,
    }
