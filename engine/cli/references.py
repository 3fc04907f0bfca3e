"""Runs and what is in them, as people name them: an id, the start of one, `@latest`, `-1`.

run      = [Flow/] (id | start of an id | @latest | @latest-failed | -N)
in a run = run [/step [/task [/artifact]]]
"""

import re
from collections.abc import Iterator
from itertools import islice

from msgspec import Struct

from engine.client.reader import Reader
from engine.config import did_you_mean
from engine.errors import NotFoundError, UsageError
from engine.ids import safe_name
from engine.stores.metadata.base import RunRecord

_COUNT_BACK = re.compile(r"@?-(\d+)\Z")
_CANDIDATES_SHOWN = 5
FAILED = ("failed", "interrupted")


class Place(Struct, frozen=True):
    """A run, or something in it."""

    run: RunRecord
    step: str | None = None
    task: str | None = None
    artifact: str | None = None


def find_run(reader: Reader, text: str, *, flow: str | None = None) -> RunRecord:
    """Find the run that `text` names.

    Args:
        reader: where to look.
        text: as above, and nothing after it.
        flow: the flow that is meant when `text` names none; None for any.

    Raises:
        NotFoundError: there is no such run.
        UsageError: `text` is the start of several ids.
    """
    place = find_place(reader, text, flow=flow)
    if place.step is not None:
        raise UsageError(f"{text!r} names a step or more; a run is wanted")
    return place.run


def find_place(reader: Reader, text: str, *, flow: str | None = None) -> Place:
    """Find the run, step, task or artifact that `text` names; of the run alone it is known to be.

    Raises:
        NotFoundError: there is no such run.
        UsageError: `text` is the start of several ids, or has too many parts.
        UnsafeNameError: a part cannot be a name.
    """
    parts = text.strip("/").split("/")
    if len(parts) > 1 and _names_flow(reader, parts[0]):
        flow, *parts = parts
    if len(parts) > 4:
        raise UsageError(f"{text!r} has too many parts", hint="Flow/run/step/task/artifact")
    run = _run(reader, parts[0], flow)
    rest = [
        safe_name(p, what=w) for p, w in zip(parts[1:], ("step", "task", "artifact"), strict=False)
    ]
    return Place(run, *rest)


def _names_flow(reader: Reader, name: str) -> bool:
    return not name.startswith(("@", "-")) and name in reader.flows()


def _run(reader: Reader, text: str, flow: str | None) -> RunRecord:
    if text == "@latest":
        return reader.unlisted(flow=flow) or _nth(reader.runs(flow), 0, text, flow)
    if text == "@latest-failed":
        failed = (r for r in reader.runs(flow) if reader.status(r) in FAILED)
        return _nth(failed, 0, text, flow)
    if back := _COUNT_BACK.match(text):
        return _nth(reader.runs(flow), max(0, int(back[1]) - 1), text.removeprefix("@"), flow)
    safe_name(text, what="run")
    return _by_id(reader, text, flow)


def _nth(runs: Iterator[RunRecord], index: int, text: str, flow: str | None) -> RunRecord:
    found = next(islice(runs, index, None), None)
    if found is None:
        of_flow = f" of {flow}" if flow else ""
        raise NotFoundError(
            f"there is no run {text}{of_flow}", hint="`aflow list` shows the runs there are"
        )
    return found


def _by_id(reader: Reader, text: str, flow: str | None) -> RunRecord:
    starting: list[RunRecord] = []
    for flow_name in [flow] if flow else reader.flows():
        for name in dict.fromkeys((text, text.upper())):
            if (exact := reader.run(flow_name, name)) is not None:
                return exact
    start = text.upper()
    starting = list(
        islice((r for r in reader.runs(flow) if r.run_id.upper().startswith(start)), 100)
    )
    if len(starting) == 1:
        return starting[0]
    if not starting and (unlisted := reader.unlisted(start, flow)) is not None:
        return unlisted
    if not starting:
        raise _no_such_run(reader, text, flow)
    shown = ", ".join(f"{r.flow}/{r.run_id}" for r in starting[:_CANDIDATES_SHOWN])
    more = "" if len(starting) <= _CANDIDATES_SHOWN else ", ..."
    raise UsageError(
        f"{text!r} is the start of {len(starting)} run ids: {shown}{more}",
        hint="give more of the id",
    )


def _no_such_run(reader: Reader, text: str, flow: str | None) -> NotFoundError:
    flows = list(reader.flows())
    if text in flows:
        return NotFoundError(
            f"{text!r} is a flow, not a run", hint=f"its latest run is {text}/@latest"
        )
    of_flow = f" of {flow}" if flow else ""
    ids = (r.run_id for r in islice(reader.runs(flow), 200))
    close = did_you_mean(text, ids)
    hint = f"did you mean {close}?" if close else "`aflow list` shows the runs there are"
    return NotFoundError(f"there is no run {text!r}{of_flow}", hint=hint)
