"""What a run needs to have steps in AWS Batch: its executor, and what its containers start with.

All of it is made before the run begins, so that a queue that is not there, a flow that cannot be
packaged or a step that is too large is told at once.
"""

import importlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from engine.aws.cloudwatch import container_log
from engine.aws.sessions import AwsSession
from engine.config import Config
from engine.container.command import container_command
from engine.errors import CodePackageError, ConfigError
from engine.executors.base import Executor
from engine.executors.batch import BatchExecutor, BatchExecutorConfig
from engine.executors.batch_client import BatchClient
from engine.executors.batch_requests import Needs
from engine.executors.batch_submit import NEEDS
from engine.executors.hybrid import HybridExecutor
from engine.flow.decorators.batch import Batch
from engine.flow.decorators.parallel import Parallel
from engine.flow.decorators.retry import Retry
from engine.flow.decorators.specs import Decorators
from engine.flow.spec import FlowSpec
from engine.package.bundle import suffixes_of
from engine.runtime.batch_jobs import batch_client
from engine.runtime.batch_needs import (
    Queues,
    batch_steps,
    more_memory,
    needs_of,
    refuse_gang,
)
from engine.runtime.batch_queues import QueueScout, sizes_of
from engine.runtime.code import PACKAGE, code_of, source_of
from engine.runtime.earlier import Earlier, HasFailed
from engine.runtime.options import RunOptions
from engine.runtime.remote_packages import ensure_runtime
from engine.runtime.remote_post import Durable, RemotePost
from engine.runtime.remote_variables import check_variables, variables_of
from engine.runtime.stores import Stores
from engine.stores.manifest import Entries, Entry
from engine.stores.remote.parcels import Boot
from engine.stores.remote.replica import Replica
from engine.stores.remote.shipper import Shipper
from engine.stores.remote.uploads import Uploads, Wanted
from engine.stores.threads import in_thread
from engine.worker.loader import target_of
from engine.worker.main import program_of


class RemoteRun(Struct, frozen=True):
    """A run's side of Batch. `needs` are by step; `boot` lacks the run's id, and names.

    `origins` are the runs that it goes on from, the latest first; `has_failed` tells of their
    attempts, see Earlier.
    """

    replica: Replica
    client: BatchClient
    session: AwsSession
    scout: QueueScout
    needs: Mapping[str, Needs]
    variables: Mapping[str, str]
    boot: Boot
    array_max: int
    factors: Mapping[str, float]
    origins: Sequence[str] = ()
    has_failed: HasFailed = lambda run_id, task, attempt: False
    waits_s: float = 60.0

    def more_memory(
        self, step: str, resources: Mapping[str, object], times: int
    ) -> Mapping[str, object]:
        """See `scheduler.jobs.RunFacts`."""
        needs, factor = self.needs.get(step), self.factors.get(step)
        if needs is None or factor is None:
            return resources
        return {**resources, NEEDS: more_memory(needs, factor, times)}


@asynccontextmanager
async def remote_run(
    flow: type[FlowSpec],
    options: RunOptions,
    config: Config,
    stores: Stores,
    decorators: Decorators,
) -> AsyncIterator[RemoteRun]:
    """Prepare the steps of a run that go to Batch.

    Raises:
        ExecutorError, ConfigError, StoreError, LimitExceededError: they cannot run there.
    """
    steps = batch_steps(decorators)
    replica = replica_of(stores, config)
    async with batch_client(config) as (client, session):
        scout = QueueScout(client, sizes_of(session))
        queues = Queues(scout)
        needs = {
            step: await _fitted(queues, step, batch, needs_of(batch, resources, config), config)
            for step, (batch, resources) in steps.items()
        }
        for step in steps:
            if any(isinstance(d, Parallel) for d in decorators[step]):
                refuse_gang(step, needs[step])
        variables = await _variables(replica, session, config)
        for fitted in needs.values():
            check_variables(flow.__name__, fitted, variables)
        boot = await _boot(flow, options, config, stores)
        arrays, factors = config.batch_array_max, _factors(decorators)
        yield RemoteRun(
            *(replica, client, session, scout, needs, variables, boot, arrays, factors),
            waits_s=config.batch_waiting_s,
        )


async def _fitted(queues: Queues, step: str, batch: Batch, needs: Needs, config: Config) -> Needs:
    """What a step needs, in its queue; and in the one for when machines are taken away too often.

    Raises:
        ExecutorError, ConfigError, LimitExceededError: as `Queues.fit`.
    """
    what, command = f"step {step!r}", container_command()
    needs = replace(needs, group=step)
    fitted = await queues.fit(needs, command, what)
    other = batch.on_demand_queue or config.batch_on_demand_queue
    if other is None or other == fitted.queue:
        return fitted
    on_demand = await queues.fit(replace(needs, queue=other), command, what)
    return replace(fitted, on_demand=on_demand, reclaims=config.batch_reclaims - 1)


def replica_of(stores: Stores, config: Config) -> Replica:
    """The object store of a run that has steps in Batch.

    Raises:
        ConfigError: the datastore is a directory, which containers cannot see.
    """
    if stores.replica is None:
        raise ConfigError(
            f"@batch needs a datastore in S3; this one is {config.datastore}",
            hint="--datastore s3://BUCKET/PREFIX, or the setting datastore (AFLOW_DATASTORE)",
        )
    return stores.replica


class _Journal(Protocol):
    @property
    def end(self) -> int: ...


def _factors(decorators: Decorators) -> dict[str, float]:
    """By step, what its memory is multiplied with after it ran out of it."""
    retries = {
        s: next((d for d in ds if isinstance(d, Retry)), None) for s, ds in decorators.items()
    }
    return {step: r.oom_memory for step, r in retries.items() if r and r.oom_memory is not None}


@asynccontextmanager
async def hybrid(
    local: Executor, remote: RemoteRun, run_id: str, shipper: Shipper, journal: _Journal
) -> AsyncIterator[HybridExecutor]:
    """Runs the steps that are for Batch there, and the others by `local`.

    At the end of the block nothing is left running in Batch; `local` is its owner's to close.
    """
    boot = replace(remote.boot, run_id=run_id)
    if boot.code:
        await _upload_code(boot, shipper.uploads)
    durable = Durable(lambda: journal.end, shipper.until)
    blobs = remote.replica.blobs
    earlier = Earlier(blobs, remote.origins, boot, remote.has_failed) if remote.origins else None
    post = RemotePost(blobs, boot, shipper.uploads, durable, remote.variables, earlier)
    settings = BatchExecutorConfig(
        container_command(),
        array_max=remote.array_max,
        read_log=lambda stream: container_log(remote.session, stream),
        why=remote.scout.why,
        waits_s=remote.waits_s,
    )
    executor = BatchExecutor(remote.client, post, settings)
    try:
        yield HybridExecutor(
            {"local": local, NEEDS: executor},
            lambda job: NEEDS if NEEDS in job.resources else "local",
        )
    finally:
        await executor.aclose()


async def _upload_code(boot: Boot, uploads: Uploads) -> None:
    entry = Entry.unpack(boot.code)
    if entry.digest is not None:
        await uploads.ensure(bytes.fromhex(entry.digest), Wanted(entry.identity))


async def _variables(replica: Replica, session: AwsSession, config: Config) -> dict[str, str]:
    location = await session.location("s3")
    runtime = await ensure_runtime(replica.blobs, Path(config.cache_dir) / "runtimes")
    return variables_of(config, location, runtime)


async def _boot(flow: type[FlowSpec], options: RunOptions, config: Config, stores: Stores) -> Boot:
    target = target_of(flow)
    fields: dict[str, Any] = {
        "flow": flow.__name__,
        "run_id": "",
        "names": (),
        "decorators": options.decorators,
        "isolation": options.isolation or config.isolation,
    }
    if target is None:
        cloudpickle: Any = importlib.import_module("cloudpickle")  # Any: it has no types
        program = bytes(cloudpickle.dumps(program_of(flow, options.decorators)))
        return Boot(target="", is_file=False, program=program, **fields)
    source, _, name = target.rpartition(":")
    is_file = "/" in source
    code = await in_thread(_code, flow, config, stores)
    if is_file:
        target = f"{source_of(flow).script}:{name}"
    return Boot(target=target, is_file=is_file, code=code, **fields)


def _code(flow: type[FlowSpec], config: Config, stores: Stores) -> bytes:
    """The packed entry of the flow's code; empty for a flow of an installed package, which the
    image has to have.

    Raises:
        CodePackageError: there is no package, and why.
    """
    suffixes = suffixes_of(config.package_suffixes)
    described, note = code_of(flow, "", stores, suffixes, now_ns=time.time_ns())
    if PACKAGE not in described:
        if note is None and suffixes:
            return b""
        raise CodePackageError(
            flow.__name__,
            problem=f"cannot run in a container without its code: {note or described['problem']}",
        )
    return Entries(described[PACKAGE])[PACKAGE].pack()
