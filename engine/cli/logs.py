"""`aflow logs RUN[/step[/task]]`: read or follow what tasks printed.

Following polls the log file; it holds no lock and sends no signal, so nothing that happens to the
reader touches the run. It ends when the run does, with the run's exit code.
"""

import json
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypedDict, Unpack

import click
from msgspec.structs import replace

from engine.cli import times
from engine.cli.clock import now_us
from engine.cli.escapes import safe
from engine.cli.options import session, verb
from engine.cli.references import Place, find_place
from engine.cli.status import Summary
from engine.client.reader import ENDED, Reader
from engine.errors import NotFoundError, UsageError
from engine.stores.logs import LogQuery, LogRecord
from engine.stores.metadata.base import RunRecord

POLL_S = 0.1
_PREFIX_COLORS = (36, 33, 32, 35, 34, 96)
_STREAMS = {"out": "stdout", "err": "stderr", "stdout": "stdout", "stderr": "stderr", "both": None}


class Filters(TypedDict):
    """click's values of the options that choose lines."""

    steps: tuple[str, ...]
    tasks: tuple[str, ...]
    failed: bool
    grep: str | None
    since: str | None
    until: str | None
    tail: int | None
    attempt: int | None
    stream: str
    only_stdout: bool
    only_stderr: bool


@verb(
    "logs",
    examples="""
aflow logs @latest                    all that was printed
aflow logs -f @latest                 go on until the run ends, with its exit code
aflow logs 01JF3/train/17 --tail 50 -t
aflow logs 01JF3 --failed --stream err
aflow logs 01JF3 --grep 'loss=nan' --since 15m --json
""",
    json=True,
)
@click.argument("where", default="@latest")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends.")
@click.option("--step", "steps", multiple=True, help="Only this step. May be repeated.")
@click.option("--task", "tasks", multiple=True, metavar="STEP/TASK", help="Only this task.")
@click.option("--failed", is_flag=True, help="Only tasks that failed.")
@click.option("--grep", metavar="REGEX", help="Only lines in which this is found.")
@click.option("--since", metavar="WHEN", help="Only lines since: 90s, 2h, 2026-07-28T14:30.")
@click.option("--until", metavar="WHEN", help="Only lines before.")
@click.option(
    "--tail", "-n", type=click.IntRange(min=0), metavar="N", help="Only the last N lines."
)
@click.option("--attempt", type=click.IntRange(min=0), metavar="N", help="Only this attempt.")
@click.option(
    "--stream", type=click.Choice(list(_STREAMS)), default="both", help="Only out or err."
)
@click.option("--stdout", "only_stdout", is_flag=True, hidden=True)  # Metaflow's spelling
@click.option("--stderr", "only_stderr", is_flag=True, hidden=True)
@click.option("--both", is_flag=True, hidden=True, expose_value=False)
@click.option("--timestamps", "-t", is_flag=True, help="Begin each line with its time.")
@click.option("--no-log-prefix", is_flag=True, help="Do not begin each line with its task.")
def command(
    where: str, follow: bool, timestamps: bool, no_log_prefix: bool, **filters: Unpack[Filters]
) -> int:
    """Read or follow what the tasks of a run, a step or a task printed. [default: @latest]"""
    now = session()
    if follow and filters["failed"]:
        raise UsageError(
            "--failed looks back, and --follow ahead", hint="follow without it, or do not follow"
        )
    with Reader.open(now.config) as reader:
        place = find_place(reader, where, flow=now.flow_name)
        query = _query(reader, place, filters)
        color = not now.json and now.color()
        show = _as_json if now.json else _as_text(color, timestamps, not no_log_prefix)
        if not follow:
            for record in _read(reader, place.run, query):
                print(show(record))
            return 0
        return _follow(reader, place.run, query, show)


def _query(reader: Reader, place: Place, filters: Filters) -> LogQuery:
    if place.artifact is not None:
        raise UsageError("an artifact has no log", hint="name a run, a step or a task")
    run = place.run
    begun = list(reader.steps(run.flow, run.run_id))
    steps = [*filters["steps"], *([place.step] if place.step else [])]
    for step in steps:
        if step not in begun:
            raise NotFoundError(
                f"there is no step {step!r} that has begun in {run.flow}/{run.run_id}",
                hint=f"it has {', '.join(begun) or 'none yet'}",
            )
    tasks = [*filters["tasks"], *([f"{place.step}/{place.task}"] if place.task else [])]
    for task in tasks:
        step, slash, task_id = task.partition("/")
        if not slash or reader.task(run.flow, run.run_id, step, task_id) is None:
            raise NotFoundError(
                f"there is no task {task!r} that has begun in {run.flow}/{run.run_id}",
                hint="a task is STEP/TASK, such as train/3",
            )
    if filters["failed"]:
        failed = {f"{t.step}/{t.task_id}" for t in _failed(reader, run)}
        tasks = [task for task in tasks if task in failed] if tasks else [*failed]
    now = now_us()
    since, until = filters["since"], filters["until"]
    return LogQuery(
        steps=frozenset(steps) if steps else None,
        tasks=frozenset(tasks) if tasks or filters["failed"] else None,
        attempt=filters["attempt"],
        stream=_stream(filters),
        since_us=times.parse_instant(since, now_us=now) if since else None,
        until_us=times.parse_instant(until, now_us=now) if until else None,
        grep=filters["grep"],
        tail=filters["tail"],
    )


def _failed(reader: Reader, run: RunRecord) -> Iterator[Any]:  # Any: TaskRecord
    for status in ("failed", "retrying"):
        yield from reader.tasks(run.flow, run.run_id, status=status)


def _stream(filters: Filters) -> str | None:
    if filters["only_stdout"] != filters["only_stderr"]:
        return "stdout" if filters["only_stdout"] else "stderr"
    return _STREAMS[filters["stream"]]


def _read(reader: Reader, run: RunRecord, query: LogQuery) -> Iterator[LogRecord]:
    position = 0
    while (page := reader.log_page(run.flow, run.run_id, query, position)).records:
        yield from page.records
        position, query = page.position, replace(query, tail=None)


def _follow(
    reader: Reader, run: RunRecord, query: LogQuery, show: Callable[[LogRecord], str]
) -> int:
    pause = threading.Event()
    position = 0
    while True:
        # Asked before reading: what was printed before the end is then sure to be read.
        has_ended = reader.status(reader.run(run.flow, run.run_id) or run) in ENDED
        page = reader.log_page(run.flow, run.run_id, query, position)
        for record in page.records:
            print(show(record))
        sys.stdout.flush()
        position, query = page.position, replace(query, tail=None)
        if page.records:
            continue
        if has_ended:
            return Summary.read(reader, reader.run(run.flow, run.run_id) or run).exit_code
        pause.wait(POLL_S)


def _as_text(color: bool, timestamps: bool, prefix: bool) -> Callable[[LogRecord], str]:
    def show(record: LogRecord) -> str:
        text = safe(record.text, color=color)
        if prefix:
            text = f"{_prefix(record, color)} {text}"
        return f"{times.clock(record.at_us)} {text}" if timestamps else text

    return show


def _prefix(record: LogRecord, color: bool) -> str:
    prefix = f"[{record.step}/{record.task_id}]"
    if not color:
        return prefix
    code = _PREFIX_COLORS[zlib.crc32(record.step.encode()) % len(_PREFIX_COLORS)]
    return f"\x1b[{code}m{prefix}\x1b[0m"


def _as_json(record: LogRecord) -> str:
    return json.dumps(
        {
            "schema": "aflow/log/1",
            "at": times.iso(record.at_us),
            "step": record.step,
            "task_id": record.task_id,
            "attempt": record.attempt,
            "stream": record.stream,
            "text": record.text,
        }
    )
