"""`aflow list [FLOW]`: flows, or runs."""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from engine.cli import times
from engine.cli.clock import now_us
from engine.cli.options import session, verb
from engine.cli.tables import table, terminal_width
from engine.client.reader import Reader
from engine.config import did_you_mean
from engine.errors import NotFoundError
from engine.stores.metadata.base import RunRecord

STATUSES = ("running", "succeeded", "failed", "interrupted")
_LIMIT = 20


@verb(
    "list",
    examples="""
aflow list                            the latest runs of every flow
aflow list TrainFlow --status failed --since 7d
aflow list --flows                    the flows
aflow list --limit 0 --json           every run, for programs
""",
    json=True,
)
@click.argument("flow", required=False)
@click.option("--flows", is_flag=True, help="List flows, not runs.")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs with this status.")
@click.option("--since", metavar="WHEN", help="Only runs begun since: 2h, 7d, 2026-07-28.")
@click.option("--tag", "tags", multiple=True, help="Only runs with this tag. May be repeated.")
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(min=0),
    default=_LIMIT,
    metavar="N",
    help=f"At most so many; 0 for all. [default: {_LIMIT}]",
)
def command(
    flow: str | None,
    flows: bool,
    status: str | None,
    since: str | None,
    tags: tuple[str, ...],
    limit: int,
) -> None:
    """List runs, newest first, of FLOW or of every flow."""
    now = session()
    flow = flow or now.flow_name
    since_us = times.parse_instant(since, now_us=now_us()) if since else None
    if not Path(now.config.datastore).exists() and now.config.source("datastore") == "default":
        _say_nothing_yet(now.config.datastore, as_json=now.json)
        return
    with Reader.open(now.config) as reader:
        if flows:
            _list_flows(reader, as_json=now.json)
            return
        if flow is not None and flow not in reader.flows():
            raise _no_flow(reader, flow)
        found = reader.runs(flow, since_us=since_us, tags=tags)
        if status is not None:  # a run whose driver died is interrupted, whatever is written
            found = (run for run in found if reader.status(run) == status)
        shown = islice(found, limit or None)
        _print_runs(reader, shown, as_json=now.json)
        if limit and next(found, None) is not None:
            click.echo(f"more than {limit}: --limit 0 lists all", err=True)


def _say_nothing_yet(datastore: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"schema": "aflow/list/1", "runs": []}))
    else:
        click.echo(f"no runs yet: {datastore} does not exist", err=True)


def _no_flow(reader: Reader, flow: str) -> NotFoundError:
    close = did_you_mean(flow, reader.flows())
    hint = f"did you mean {close!r}?" if close else "`aflow list --flows` shows the flows"
    return NotFoundError(f"there is no flow {flow!r} in {reader.root}", hint=hint)


def _list_flows(reader: Reader, *, as_json: bool) -> None:
    found = [(name, next(reader.runs(name))) for name in reader.flows()]
    if as_json:
        flows = [{"flow": name, "latest_run": _fields(reader, run)} for name, run in found]
        print(json.dumps({"schema": "aflow/list/1", "flows": flows}))
        return
    now = now_us()
    rows = (
        (name, run.run_id, reader.status(run), times.age(run.created_us, now_us=now))
        for name, run in found
    )
    for line in table(("FLOW", "LATEST RUN", "STATUS", "BEGAN"), rows, width=_width()):
        print(line)


def _print_runs(reader: Reader, runs: Iterator[RunRecord], *, as_json: bool) -> None:
    if as_json:
        fields = [_fields(reader, run) for run in runs]
        print(json.dumps({"schema": "aflow/list/1", "runs": fields}))
        return
    head = ("RUN", "STATUS", "BEGAN", "TOOK", "USER", "TAGS")
    for line in table(head, _rows(reader, runs), width=_width()):
        print(line)


def _rows(reader: Reader, runs: Iterator[RunRecord]) -> Iterator[tuple[str, ...]]:
    now = now_us()
    for run in runs:
        took = times.duration(run.ended_us - run.created_us) if run.ended_us else ""
        yield (
            f"{run.flow}/{run.run_id}",
            reader.status(run),
            times.age(run.created_us, now_us=now),
            took,
            run.user,
            ", ".join(run.tags),
        )


def _fields(reader: Reader, run: RunRecord) -> dict[str, Any]:  # Any: JSON
    return {
        "flow": run.flow,
        "run_id": run.run_id,
        "status": reader.status(run),
        "created_at": times.iso(run.created_us),
        "ended_at": times.iso(run.ended_us) if run.ended_us else None,
        "user": run.user,
        "tags": list(run.tags),
        "system_tags": list(run.system_tags),
        "origin_run_id": run.origin_run_id,
        "reason": run.reason,
    }


def _width() -> int | None:
    return terminal_width(is_tty=sys.stdout.isatty())
