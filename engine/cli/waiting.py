"""Why tasks of a run wait in AWS Batch: what `aflow status` asks it of a run that goes on."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.cli import times
from engine.cli.clock import now_us
from engine.cli.escapes import safe
from engine.config import Config
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.runtime.batch_jobs import Waiting

_PATIENCE_S = 15.0


class Waits(Struct, frozen=True):
    """What was found, as lines for people and as fields of JSON."""

    lines: Sequence[str]
    fields: Mapping[str, Any]  # Any: JSON


def of_run(config: Config, run_id: str, queues: Sequence[str]) -> Waits:
    """Ask Batch what of a run waits for a machine. That it does not answer is a line, no error."""
    import asyncio

    try:
        found = asyncio.run(_ask(config, run_id, queues))
    except (EngineError, TimeoutError) as error:
        told = error.message if isinstance(error, EngineError) else "no answer"
        return Waits([f"\nwhat waits in AWS Batch is not known: {safe(told)}"], {})
    now = now_us()
    lines = [
        f"\nwaiting in AWS Batch: {w.count:,} task{'' if w.count == 1 else 's'}, "
        f"{times.duration(max(0, now - w.since_us))} since the first was sent: {safe(str(w.why))}"
        for w in found
    ]
    return Waits(lines, {"waiting": [_fields(w) for w in found]})


async def _ask(config: Config, run_id: str, queues: Sequence[str]) -> "list[Waiting]":
    import asyncio

    from engine.runtime.batch_jobs import batch_jobs

    found: list[Waiting] = []
    async with asyncio.timeout(_PATIENCE_S):
        for queue in queues:
            async with batch_jobs(config, queue) as there:
                found += await there.waiting(run_id)
    return found


def _fields(waiting: "Waiting") -> dict[str, Any]:  # Any: JSON
    return {
        "tasks": waiting.count,
        "since_at": times.iso(waiting.since_us),
        "why": waiting.why.message,
        "hint": waiting.why.hint,
    }
