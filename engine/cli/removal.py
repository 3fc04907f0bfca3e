"""What `gc`, `delete` and `du` share: reading journals, asking first, telling what was removed."""

import json
import sys
from collections.abc import Sequence

import click
from msgspec import Struct
from msgspec.structs import replace

from engine.cli import times
from engine.cli.clock import now_us
from engine.cli.options import Session
from engine.client.keeper import Keeper
from engine.errors import EXIT_INFRASTRUCTURE, EXIT_RUN_FAILED, UsageError
from engine.scheduler.journal import manifests_in
from engine.stores.gc import Collected, Request, RunName


class Wish(Struct, frozen=True):
    """What a verb was asked to remove, and how. `schema` is that of its JSON."""

    schema: str
    runs: Sequence[RunName]
    grace_us: int
    is_dry_run: bool
    yes: bool


def check_consent(*, yes: bool, is_dry_run: bool) -> None:
    """Refuse to remove anything if nobody has said yes and nobody is there to ask.

    Raises:
        UsageError: so it is.
    """
    if not (yes or is_dry_run or (sys.stdin.isatty() and sys.stderr.isatty())):
        raise UsageError(
            "this removes data, and there is no terminal to ask at",
            hint="--dry-run shows what would go; --yes goes ahead",
        )


def carry_out(now: Session, keeper: Keeper, wish: Wish) -> int:
    """Ask if need be, remove, tell what was removed; return the exit code."""
    request = Request(
        manifests_in=manifests_in,
        now_us=now_us(),
        grace_us=wish.grace_us,
        runs=wish.runs,
        is_dry_run=True,
    )
    if not wish.is_dry_run:
        if not (wish.yes or _is_agreed_to(keeper, request)):
            click.echo("nothing was removed", err=True)
            return EXIT_RUN_FAILED
        request = replace(request, is_dry_run=False)
    done = keeper.collect(request)
    if now.json:
        print(json.dumps({"schema": wish.schema, **_fields(done, is_dry_run=wish.is_dry_run)}))
    else:
        print("\n".join(_lines(done, is_dry_run=wish.is_dry_run)))
        for reason in _reasons(done, is_dry_run=wish.is_dry_run):
            click.echo(reason, err=True)
    return EXIT_INFRASTRUCTURE if done.unreadable else 0


def _is_agreed_to(keeper: Keeper, request: Request) -> bool:
    planned = keeper.collect(request)
    for line in [*_lines(planned, is_dry_run=True), *_reasons(planned, is_dry_run=True)]:
        click.echo(line, err=True)
    return click.confirm("Go ahead?", default=False, err=True)


def _lines(done: Collected, *, is_dry_run: bool) -> list[str]:
    """What was removed, or would be; a line a run and one of the sums."""
    verb = "would delete" if is_dry_run else "deleted"
    told = [f"{verb}  {run}" for run in done.runs]
    removed = "would remove" if is_dry_run else "removed"
    return [
        *told,
        f"{removed} {done.blobs:,} blobs, {times.size(done.blob_bytes)}; "
        f"{len(done.runs):,} runs, {times.size(done.record_bytes)}",
        *([f"{removed} {done.uploads:,} unfinished uploads"] if done.uploads else []),
    ]


def _reasons(done: Collected, *, is_dry_run: bool) -> list[str]:
    """Why blobs that nobody needs were left where they are, and what to do."""
    told = [
        f"{run} cannot be read, so what it needs is not known: {problem}"
        for run, problem in done.unreadable.items()
    ]
    told += [f"{a.run} is alive, driven by {a.holder.host}/{a.holder.pid}" for a in done.alive]
    if done.began:
        told.append(f"{done.began} began meanwhile")
    if told:
        left = "no blob would be removed now" if is_dry_run else "blobs were left in their places"
        after = "aflow fsck" if done.unreadable else "aflow gc, once no run is alive"
        told.append(f"so {left}; later: {after}")
    return told


def _fields(done: Collected, *, is_dry_run: bool) -> dict[str, object]:
    """As JSON has it."""
    return {
        "dry_run": is_dry_run,
        "complete": done.is_complete,
        "runs": [str(run) for run in done.runs],
        "record_bytes": done.record_bytes,
        "blobs": done.blobs,
        "blob_bytes": done.blob_bytes,
        "uploads": done.uploads,
        "alive": [str(alive.run) for alive in done.alive],
        "began": str(done.began) if done.began else None,
        "unreadable": done.unreadable,
    }
