"""`aflow delete RUN...`: delete runs, and the blobs that only they needed."""

import click

from engine.cli import removal
from engine.cli.options import session, verb
from engine.cli.references import find_run
from engine.client.keeper import keeper
from engine.client.reader import Reader
from engine.stores.gc import RunName

_ENDLESS_US = 2**62
"""The grace for other blobs: only what the runs referred to goes; the rest is `aflow gc`'s."""


@verb(
    "delete",
    examples="""
aflow delete @latest-failed --dry-run
aflow delete 01JF3 TrainFlow/01JG7 --yes
""",
    json=True,
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def command(runs: tuple[str, ...], dry_run: bool, yes: bool) -> int:
    """Delete runs, with the blobs that no other run needs. A run that is alive is refused."""
    removal.check_consent(yes=yes, is_dry_run=dry_run)
    now = session()
    with Reader.open(now.config) as reader:
        found = [find_run(reader, text, flow=now.flow_name) for text in runs]
    names = dict.fromkeys(RunName(run.flow, run.run_id) for run in found)
    wish = removal.Wish(
        schema="aflow/delete/1",
        runs=list(names),
        grace_us=_ENDLESS_US,
        is_dry_run=dry_run,
        yes=yes,
    )
    with keeper(now.config) as kept:
        return removal.carry_out(now, kept, wish)
