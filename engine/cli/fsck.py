"""`aflow fsck`: is all that is stored still what was written?

`--reindex` makes the list of runs again from the journals, which are the truth.
"""

import json

import click
from msgspec.structs import asdict

from engine.cli.escapes import safe
from engine.cli.options import session, verb
from engine.client.keeper import keeper
from engine.errors import EXIT_INFRASTRUCTURE
from engine.scheduler.facts import fact_of
from engine.stores.fsck import Damage
from engine.stores.metadata.rebuild import Reindexed, reindex


@verb(
    "fsck",
    examples="aflow fsck\naflow fsck --read-data\naflow fsck --reindex",
    json=True,
)
@click.option("--read-data", is_flag=True, help="Read and hash every blob, however long it takes.")
@click.option("--reindex", "again", is_flag=True, help="Make the list of runs again from journals.")
def command(read_data: bool, again: bool) -> int:
    """Check what is stored: journals, logs, blobs, the database. Ends with 6 if something is
    wrong."""
    now = session()
    with keeper(now.config) as kept:
        kept.refresh()
        done = reindex(kept.layout, str(kept.metadata), fact_of) if again else None
        runs, damages = kept.damages(read_data=read_data)
    if now.json:
        print(json.dumps(_fields(runs, damages, done)))
    else:
        print("\n".join(_lines(runs, damages, done)))
    return EXIT_INFRASTRUCTURE if damages else 0


def _fields(runs: int, damages: list[Damage], done: Reindexed | None) -> dict[str, object]:
    """As JSON has it."""
    return {
        "schema": "aflow/fsck/1",
        "runs": runs,
        "reindexed": done.written if done else 0,
        "set_aside": done.set_aside if done else None,
        "unreadable": {d.used_by: d.detail for d in damages if d.path.endswith("/journal")},
        "damages": [asdict(damage) for damage in damages],
    }


def _lines(runs: int, damages: list[Damage], done: Reindexed | None) -> list[str]:
    lines = [safe(f"{d.kind:7}  {d.used_by}: {_what(d)} {d.detail}".rstrip()) for d in damages]
    if done:
        if done.set_aside:
            lines.append(f"the damaged database is now {done.set_aside}")
        lines.append(f"{done.written:,} runs listed again")
    verdict = f"{len(damages):,} things are wrong" if damages else "all is well"
    return [*lines, f"{runs:,} runs checked: {verdict}"]


def _what(damage: Damage) -> str:
    return f"blob {damage.digest[:12]}" if damage.digest else f"{damage.path}:"
