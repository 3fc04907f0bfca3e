"""Where the tasks of a run run: on this machine, and in AWS Batch if a step asks for it.

Most runs are local, and import nothing of the other.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from engine.config import Config
from engine.executors.base import Executor
from engine.flow.decorators.batch import Batch
from engine.flow.decorators.specs import Decorators
from engine.flow.spec import FlowSpec
from engine.runtime.options import RunOptions
from engine.runtime.origin import Origin
from engine.runtime.stores import Stores
from engine.stores.journals import JournalWriter

if TYPE_CHECKING:
    from engine.runtime.remote import RemoteRun
    from engine.runtime.shipping import Beside


@asynccontextmanager
async def remote_part(
    flow: type[FlowSpec],
    options: RunOptions,
    config: Config,
    stores: Stores,
    decorators: Decorators,
    origin: Origin | None,
) -> AsyncIterator["RemoteRun | None"]:
    """Prepare the steps that run in AWS Batch, if any do; `origin` is the run to go on from.

    Raises:
        ExecutorError, ConfigError, StoreError, LimitExceededError: they cannot run there.
    """
    if not any(d.name == Batch.name for chosen in decorators.values() for d in chosen):
        yield None
        return
    from engine.runtime.remote import remote_run  # noqa: PLC0415  # see the module's head

    async with remote_run(flow, options, config, stores, decorators) as remote:
        if origin is not None:
            remote = replace(remote, origins=origin.run_ids, has_failed=origin.memo.has_failed)
        yield remote


@asynccontextmanager
async def executor_of(
    local: Executor,
    remote: "RemoteRun | None",
    beside: "Beside | None",
    run_id: str,
    journal: JournalWriter,
) -> AsyncIterator[Executor]:
    """What runs the tasks. `local` is its owner's to close; nothing else is left at the end."""
    if remote is None or beside is None:
        yield local
        return
    from engine.runtime.remote import hybrid  # noqa: PLC0415  # as above

    async with hybrid(local, remote, run_id, beside.shipper, journal) as executor:
        yield executor
