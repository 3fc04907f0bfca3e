"""`aflow batch list|kill`: what aflow has in queues of AWS Batch, and how to end it.

The queues are those of the settings and of the steps of runs, of which their journals tell.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import Struct
from msgspec.structs import asdict

from engine.cli import removal, times
from engine.cli.options import session, verb
from engine.cli.tables import table, terminal_width
from engine.config import Config
from engine.errors import DatastoreError, EngineError, NotFoundError, StoreError, UsageError

if TYPE_CHECKING:
    from engine.executors.batch_client import Listed

F = TypeVar("F", bound=Callable[..., Any])  # Any: a callback's own signature
_HEAD = ("STATE", "RUN", "JOB", "CONTAINERS", "USER", "SINCE", "QUEUE", "ID")
_RUNS_ASKED = 50
"""The newest of the runs that may have jobs are asked for their queues: for each its journal is
opened, and one in an object store has to be fetched."""


class _Chosen(Struct, frozen=True):
    """Which jobs: of runs whose ids begin so, of a user, in a queue; "" for any."""

    run: str
    user: str
    queue: str


def _choice(function: F) -> F:
    """Give a verb RUN, --user, --mine and --queue."""
    for option in (
        click.option("--queue", default="", metavar="Q", help="Only this job queue."),
        click.option("--mine", is_flag=True, help="Only the jobs of your own runs."),
        click.option("--user", default="", metavar="NAME", help="Only the jobs of NAME's runs."),
        click.argument("run", default="", metavar="[RUN]"),
    ):
        function = option(function)
    return function


def _chosen(run: str, user: str, queue: str, *, mine: bool) -> _Chosen:
    if mine and user:
        raise UsageError("--mine and --user are both given", hint="--mine is --user YOU")
    return _Chosen(run, session().config.username if mine else user, queue)


@verb(
    "list",
    examples="aflow batch list\naflow batch list --mine\naflow batch list 01JF3 --json",
    json=True,
)
@_choice
def list_(run: str, user: str, mine: bool, queue: str) -> None:
    """List the jobs of RUN, by the beginning of its id, or of all runs, that have not ended."""
    jobs = asyncio.run(_listed(_chosen(run, user, queue, mine=mine)))
    if session().json:
        print(json.dumps({"schema": "aflow/batch-jobs/1", "jobs": [asdict(j) for j in jobs]}))
        return
    rows = (
        (j.state, j.run_id, j.name, str(j.size), j.user, times.iso(j.created_us), j.queue, j.job_id)
        for j in jobs
    )
    for line in table(_HEAD, rows, width=terminal_width(is_tty=sys.stdout.isatty())):
        print(line)


@verb(
    "kill",
    examples="aflow batch kill 01JF3 --dry-run\naflow batch kill --mine --yes",
    json=True,
)
@click.option("--dry-run", is_flag=True, help="Say what would be ended, and end nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--all", "everything", is_flag=True, help="The jobs of all runs, of everybody.")
@_choice
def kill(
    run: str, user: str, mine: bool, queue: str, everything: bool, dry_run: bool, yes: bool
) -> None:
    """End the jobs of RUN, of a user's runs, or of all: those of a driver that is gone, say."""
    chosen = _chosen(run, user, queue, mine=mine)
    if not (chosen.run or chosen.user or everything):
        raise UsageError("it is not said whose jobs", hint="RUN, --mine, --user NAME or --all")
    removal.check_consent(yes=yes, is_dry_run=dry_run)
    jobs = asyncio.run(_listed(chosen))
    if jobs and not dry_run:
        if not yes and not click.confirm(f"End {len(jobs):,} jobs?", default=False, err=True):
            return
        asyncio.run(_kill(chosen, jobs))
    if session().json:
        fields = {"dry_run": dry_run, "jobs": [asdict(j) for j in jobs]}
        print(json.dumps({"schema": "aflow/batch-kill/1", **fields}))
        return
    for job in jobs:
        print(f"{'would end' if dry_run else 'ended'}  {job.name}  {job.user}".rstrip())
    print(f"{len(jobs):,} jobs")


async def _listed(chosen: _Chosen) -> "list[Listed]":
    from engine.runtime.batch_jobs import batch_jobs

    config = session().config
    named = [] if chosen.queue else _queues_of_runs(config, chosen)
    first = chosen.queue or config.batch_queue or ""
    found: list[Listed] = []
    if first or not named:
        async with batch_jobs(config, first) as there:
            found += await there.active(chosen.run, chosen.user)
    for queue in named:
        if queue == first:
            continue
        try:
            async with batch_jobs(config, queue) as there:
                found += await there.active(chosen.run, chosen.user)
        except EngineError as error:  # it may be gone since, or another account's
            click.echo(f"warning: queue {queue!r}, of a run: {error.message}", err=True)
    return sorted(found, key=lambda job: job.created_us)


def _queues_of_runs(config: Config, chosen: _Chosen) -> list[str]:
    """The queues that steps of the chosen runs name, of those that may have left jobs."""
    from engine.client.reader import Reader

    found: set[str] = set()
    with suppress(DatastoreError), Reader.open(config) as reader:
        runs = (
            r
            for r in reader.runs()
            if r.run_id.startswith(chosen.run)
            and chosen.user in ("", r.user)
            and (chosen.run or r.status != "succeeded")
        )
        for run in islice(runs, _RUNS_ASKED):
            with suppress(NotFoundError, StoreError):  # deleted meanwhile, or damaged
                began = reader.began(run.flow, run.run_id)
                found.update(began.code.get("queues", ()) if began else ())
    return sorted(found)


async def _kill(chosen: _Chosen, jobs: "list[Listed]") -> None:
    from engine.runtime.batch_jobs import batch_jobs

    config = session().config
    async with batch_jobs(config, chosen.queue) as there:
        await there.kill(jobs, f"aflow batch kill by {config.username}")


class _Actions(click.Group):
    """The actions, with a suggestion for a slip."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise UsageError(
                f"there is no action {args[0]!r}", hint=f"one of {', '.join(self.commands)}"
            )
        return super().resolve_command(ctx, args)


command = _Actions(
    "batch",
    help="List and end the jobs that aflow has in AWS Batch.",
    commands=dict[str, click.Command](list=list_, kill=kill),
)
