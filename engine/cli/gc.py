"""`aflow gc`: delete runs by rule, and remove the blobs that no run needs."""

import click

from engine.cli import removal, times
from engine.cli.clock import now_us
from engine.cli.options import session, verb
from engine.client.keeper import Keeper, keeper
from engine.client.reader import Reader
from engine.errors import NotFoundError, UsageError
from engine.stores.gc import RunName
from engine.stores.retention import Rules, chosen


@verb(
    "gc",
    examples="""
aflow gc --dry-run                    what no run needs; deletes no run
aflow gc --keep-last 10 --dry-run     and all but the last 10 runs of each flow
aflow gc TrainFlow --older-than 30d --keep-tag paper --yes
""",
    json=True,
)
@click.argument("flow", required=False)
@click.option(
    "--keep-last",
    type=click.IntRange(min=0),
    metavar="N",
    help="Delete runs, but not the last N of each flow.",
)
@click.option(
    "--older-than", metavar="WHEN", help="Delete runs that ended before: 30d, 2026-07-28."
)
@click.option(
    "--keep-tag", "keep_tags", multiple=True, help="But not those with this tag. May be repeated."
)
@click.option(
    "--grace",
    default="1h",
    metavar="AGE",
    show_default=True,
    help="Leave blobs that are younger and that no run refers to.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def command(
    flow: str | None,
    keep_last: int | None,
    older_than: str | None,
    keep_tags: tuple[str, ...],
    grace: str,
    dry_run: bool,
    yes: bool,
) -> int:
    """Remove the blobs that no run needs, and before it, if asked to, runs of FLOW or of all flows.

    Safe at any time: while a run is alive no blob is removed, and it is not deleted.
    """
    removal.check_consent(yes=yes, is_dry_run=dry_run)
    now = session()
    rules = _rules(keep_last, older_than, keep_tags)
    with keeper(now.config) as kept:
        wish = removal.Wish(
            schema="aflow/gc/1",
            runs=_chosen(kept, rules, flow),
            grace_us=_age_us(grace),
            is_dry_run=dry_run,
            yes=yes,
        )
        return removal.carry_out(now, kept, wish)


def _rules(keep_last: int | None, older_than: str | None, keep_tags: tuple[str, ...]) -> Rules:
    before_us = times.parse_instant(older_than, now_us=now_us()) if older_than else None
    if keep_tags and keep_last is None and before_us is None:
        raise UsageError(
            "--keep-tag says which runs stay, and nothing says which go",
            hint="add --keep-last N or --older-than 30d",
        )
    return Rules(keep_last, before_us, keep_tags)


def _age_us(text: str) -> int:
    now = now_us()
    return max(0, now - times.parse_instant(text, now_us=now))


def _chosen(kept: Keeper, rules: Rules, flow: str | None) -> list[RunName]:
    """The runs that the rules let go, oldest first; never one that is alive."""
    with Reader.open(session().config) as reader:
        if flow is not None and flow not in reader.flows():
            raise NotFoundError(
                f"there is no flow {flow!r} in {reader.root}",
                hint="`aflow list --flows` shows the flows",
            )
        going = [RunName(run.flow, run.run_id) for run in chosen(reader.runs(flow), rules)]
    alive = kept.alive() if going else set()
    return [run for run in reversed(going) if run not in alive]
