"""`aflow batch list|kill`: what aflow has in a queue of AWS Batch, and how to end it."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec.structs import asdict

from engine.cli import removal, times
from engine.cli.options import session, verb
from engine.cli.tables import table, terminal_width
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.executors.batch_client import Listed

F = TypeVar("F", bound=Callable[..., Any])  # Any: a callback's own signature
_HEAD = ("STATE", "RUN", "JOB", "TASKS", "SINCE", "ID")


def _choice(function: F) -> F:
    """Give a verb RUN and --queue."""
    queue = click.option("--queue", default="", metavar="Q", help="The job queue.")
    run = click.argument("run", default="", metavar="[RUN]")
    return run(queue(function))


@verb(
    "list",
    examples="aflow batch list\naflow batch list 01JF3 --json",
    json=True,
)
@_choice
def list_(run: str, queue: str) -> None:
    """List the jobs of RUN, by the beginning of its id, or of all runs, that have not ended."""
    jobs = asyncio.run(_work(queue, run, is_kill=False))
    if session().json:
        print(json.dumps({"schema": "aflow/batch-jobs/1", "jobs": [asdict(j) for j in jobs]}))
        return
    rows = (
        (j.state, j.run_id, j.name, str(j.size), times.iso(j.created_us), j.job_id) for j in jobs
    )
    for line in table(_HEAD, rows, width=terminal_width(is_tty=sys.stdout.isatty())):
        print(line)


@verb(
    "kill",
    examples="aflow batch kill 01JF3 --dry-run\naflow batch kill 01JF3 --yes",
    json=True,
)
@click.option("--dry-run", is_flag=True, help="Say what would be ended, and end nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_choice
def kill(run: str, queue: str, dry_run: bool, yes: bool) -> None:
    """End the jobs of RUN, or with --yes of all runs: those of a driver that is gone, say."""
    removal.check_consent(yes=yes, is_dry_run=dry_run)
    jobs = asyncio.run(_work(queue, run, is_kill=False))
    if jobs and not dry_run:
        if not yes and not click.confirm(f"End {len(jobs):,} jobs?", default=False, err=True):
            return
        jobs = asyncio.run(_work(queue, run, is_kill=True))
    if session().json:
        fields = {"dry_run": dry_run, "jobs": [asdict(j) for j in jobs]}
        print(json.dumps({"schema": "aflow/batch-kill/1", **fields}))
        return
    for job in jobs:
        print(f"{'would end' if dry_run else 'ended'}  {job.name}")
    print(f"{len(jobs):,} jobs")


async def _work(queue: str, run: str, *, is_kill: bool) -> "list[Listed]":
    from engine.runtime.batch_jobs import BatchJobs, batch_client

    config = session().config
    async with batch_client(config) as (client, _):
        there = BatchJobs(client, queue, config)
        jobs = await there.active(run)
        if is_kill:
            await there.kill(jobs, f"aflow batch kill by {config.username}")
        return jobs


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
