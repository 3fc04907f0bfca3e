"""`aflow du`: how much room flows and runs take."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import click
from msgspec import Struct

from engine.cli import times
from engine.cli.options import Session, session, verb
from engine.cli.references import find_run
from engine.cli.tables import table, terminal_width
from engine.client.keeper import Keeper, keeper
from engine.client.reader import Reader
from engine.errors import EXIT_INFRASTRUCTURE, EngineError
from engine.scheduler.journal import manifests_in
from engine.stores.gc import RunName, digests_of, record_bytes
from engine.stores.layout import Layout
from engine.stores.usage import Share, Shares


class Usage(Struct):
    """What each run and each flow takes; `records` are the journals and logs of runs."""

    blob_bytes: int
    unreferenced_bytes: int
    flows: Mapping[str, Share]
    runs: Mapping[str, Share]
    records: Mapping[str, int]
    unreadable: Mapping[str, str]


@verb(
    "du",
    examples="""
aflow du                              by flow
aflow du TrainFlow                    by run
aflow du @latest --json
""",
    json=True,
)
@click.argument("what", required=False, metavar="[FLOW|RUN]")
def command(what: str | None) -> int:
    """Say how much room flows take, or the runs of FLOW, or RUN.

    OWN would be free if it were deleted; SHARED others refer to as well.
    """
    now = session()
    with keeper(now.config) as kept:
        kept.refresh()
        flow, run = _meant(now, what, kept.layout)
        usage = measure(kept)
        place = kept.place
    shown = {
        name: share
        for name, share in usage.runs.items()
        if name == run or (run is None and flow is not None and name.startswith(f"{flow}/"))
    }
    if now.json:
        print(json.dumps(_fields(place, usage, shown if what else usage.runs, flow)))
    elif flow is None:
        _print("FLOW", usage.flows, _by_flow(usage.records))
        unreferenced = times.size(usage.unreferenced_bytes)
        print(f"blobs: {times.size(usage.blob_bytes)}, of which no run refers to {unreferenced}")
    else:
        _print("RUN", shown, usage.records)
    for name, problem in usage.unreadable.items():
        click.echo(f"{name} cannot be read: {problem}", err=True)
    return EXIT_INFRASTRUCTURE if usage.unreadable else 0


def measure(kept: Keeper) -> Usage:
    """Read every journal, and the size of every blob."""
    sizes, layout = kept.blob_sizes(), kept.layout
    by_flow, by_run = Shares(sizes), Shares(sizes)
    records: dict[str, int] = {}
    unreadable: dict[str, str] = {}
    for flow in layout.flows():
        whole: set[bytes] = set()
        for run in (RunName(flow, run_id) for run_id in layout.run_ids(flow)):
            records[str(run)] = record_bytes(layout, run)
            digests: set[bytes] = set()
            try:
                digests = digests_of(layout, run, manifests_in)
            except EngineError as error:
                unreadable[str(run)] = error.message
            by_run.add(str(run), digests)
            whole |= digests
        by_flow.add(flow, whole)
    return Usage(
        blob_bytes=sum(sizes.values()),
        unreferenced_bytes=by_flow.unreferenced_bytes(),
        flows=by_flow.of_each(),
        runs=by_run.of_each(),
        records=records,
        unreadable=unreadable,
    )


def _meant(now: Session, what: str | None, layout: Layout) -> tuple[str | None, str | None]:
    """The flow, and the run in it if one is named."""
    if what is None or what in layout.flows():
        return what, None
    with Reader.open(now.config) as reader:
        found = find_run(reader, what, flow=now.flow_name)
    return found.flow, f"{found.flow}/{found.run_id}"


def _by_flow(records: Mapping[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, size_bytes in records.items():
        flow = name.partition("/")[0]
        found[flow] = found.get(flow, 0) + size_bytes
    return found


def _print(head: str, shares: Mapping[str, Share], records: Mapping[str, int]) -> None:
    rows = (
        (
            name,
            times.size(records[name] + share.own_bytes + share.shared_bytes),
            times.size(records[name] + share.own_bytes),
            times.size(share.shared_bytes),
        )
        for name, share in shares.items()
    )
    width = terminal_width(is_tty=sys.stdout.isatty())
    for line in table((head, "TOTAL", "OWN", "SHARED"), rows, width=width):
        print(line)


def _fields(
    place: str, usage: Usage, runs: Mapping[str, Share], flow: str | None
) -> dict[str, Any]:  # Any: JSON
    of_flows = _by_flow(usage.records)
    flows = {name: share for name, share in usage.flows.items() if flow in (None, name)}
    return {
        "schema": "aflow/du/1",
        "datastore": place,
        "blob_bytes": usage.blob_bytes,
        "unreferenced_bytes": usage.unreferenced_bytes,
        "flows": [{"flow": n, **_share(share, of_flows[n])} for n, share in flows.items()],
        "runs": [{"run": n, **_share(share, usage.records[n])} for n, share in runs.items()],
        "unreadable": dict(usage.unreadable),
    }


def _share(share: Share, records: int) -> dict[str, int]:
    """`own_bytes` holds the records too, for they go with the run."""
    return {
        "total_bytes": records + share.own_bytes + share.shared_bytes,
        "own_bytes": records + share.own_bytes,
        "shared_bytes": share.shared_bytes,
        "record_bytes": records,
    }
