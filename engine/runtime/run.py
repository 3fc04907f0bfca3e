"""One run: made of its parts, driven to its end, and put away."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct, to_builtins
from msgspec.structs import asdict, replace

from engine import config as configuration
from engine.config import Config
from engine.errors import UsageError
from engine.executors.base import Executor
from engine.executors.local import LocalExecutor, LocalExecutorConfig
from engine.executors.zygote import Zygote
from engine.flow.decorators.environment import Environment
from engine.flow.decorators.resources import Resources
from engine.flow.decorators.specs import Decorators, attach
from engine.flow.graph import Graph
from engine.flow.lint import graph_of
from engine.flow.parameters import ParameterContext, constants_of, resolve
from engine.flow.spec import FlowSpec
from engine.ids import new_run_id, next_run_us
from engine.package.bundle import suffixes_of
from engine.runtime.clock import Clocks
from engine.runtime.code import code_of
from engine.runtime.detaching import leaving_of, told_what_is_left
from engine.runtime.inclusion import PARAMETERS_STEP, save_parameters
from engine.runtime.options import RunOptions, RunSettings
from engine.runtime.origin import Origin, find_origin
from engine.runtime.places import executor_of, remote_part
from engine.runtime.recorder import Recorder, run_recorded
from engine.runtime.result import FinishedRun
from engine.runtime.stores import Stores
from engine.scheduler.driver import Driver, DriverParts
from engine.scheduler.facts import record_of
from engine.scheduler.jobs import JobFactory, RunFacts
from engine.scheduler.journal import RunBeganRecord, Seal, SucceededRecord, decode
from engine.scheduler.machine import Scheduler
from engine.scheduler.progress import (
    Observer,
    ResumePlanned,
    RunDone,
    RunEvent,
    TaskDone,
    TaskOutput,
)
from engine.stores.artifacts import mapped_if_here
from engine.stores.gate import entered
from engine.stores.journals import JournalReader, JournalWriter
from engine.stores.leases import Lease
from engine.stores.logs import LogBatch, LogWriter
from engine.stores.manifest import Entry, Manifest
from engine.stores.metadata.tags import merged_tags
from engine.stores.threads import in_thread
from engine.worker.loader import adopt_main, refuse_while_loading

if TYPE_CHECKING:
    from engine.runtime.remote import RemoteRun
    from engine.runtime.shipping import Beside


class _Folder(Struct, frozen=True):
    """The open files of one run: only its one driver has them."""

    run_id: str
    created_us: int
    journal: JournalWriter
    reader: JournalReader
    log: LogWriter


class Run:
    """One run of `flow`, from its id to its end. Use once.

    Raises:
        FlowError: the flow is not well formed.
        UsageError: an option does not fit.
    """

    def __init__(
        self,
        flow: type[FlowSpec],
        options: RunOptions,
        config: Config,
        stores: Stores,
        clocks: Clocks,
    ) -> None:
        refuse_while_loading()
        if flow.__module__ == "__main__":
            adopt_main()  # so that what its tasks pickle is of the same classes here
        self._flow = flow
        self._options = options
        self._config = config
        self._stores = stores
        self._settings = RunSettings.merge(options, config)
        self._tags = merged_tags((), options.tags, ())
        self._decorators = attach(flow, options.decorators)
        self._graph = graph_of(flow, self._decorators)
        known = stores.layout.run_ids(self._graph.flow)
        self._created_us = next_run_us(clocks.wall(), known)
        self._clock = clocks.steady(self._created_us)
        self._end: TaskDone | None = None
        self._remote: RemoteRun | None = None
        self._note: str | None = None

    async def execute(self, observers: tuple[Observer, ...], zygote: Zygote | None) -> FinishedRun:
        """Run to the end; cancelled, first end everything that was started."""
        executor: LocalExecutor | None = None
        origin: Origin | None = None
        try:
            async with AsyncExitStack() as remote, AsyncExitStack() as gate:
                # Until the lease tells of this run, no blob of the run to go on from may go.
                runs = str(self._stores.layout.root / "runs")
                await gate.enter_async_context(entered(runs))
                origin = await self._find_origin()
                # Before there is a run: a file that cannot be included leaves none behind.
                parameters = origin.parameters if origin else await self._save_parameters()
                parts = self._options, self._config, self._stores, self._decorators
                part = remote_part(self._flow, *parts, origin)
                self._remote = await remote.enter_async_context(part)
                zygote = zygote or self._spawn()
                executor = LocalExecutor(zygote, LocalExecutorConfig(clock=self._clock))
                with ExitStack() as stack:
                    folder = self._open_folder(stack)
                    await gate.aclose()
                    began = await self._began(folder, parameters, origin)
                    if origin is not None:
                        for observer in observers:
                            observer(origin.plan)
                    done = await self._drive(folder, began, executor, origin, observers)
                    return self._finished(folder, began, done)
        finally:
            if origin is not None:
                origin.close()
            if executor is not None:
                await executor.aclose()
            elif zygote is not None:
                await asyncio.to_thread(zygote.kill)

    def _spawn(self) -> Zygote:
        # The command line has forked its own, and has no use for all that a worker imports.
        from engine.runtime.zygotes import spawn_for  # noqa: PLC0415

        decorators, isolation = self._options.decorators, self._settings.isolation
        return spawn_for(self._flow, decorators, isolation=isolation)

    async def plan(self) -> ResumePlanned:
        """Say what `execute` would do, and do nothing.

        Raises:
            UsageError: the options name no run to go on from.
        """
        origin = await self._find_origin(is_plan=True)
        if origin is None:
            raise UsageError("no run is named to go on from", hint='resume="" is the latest')
        origin.close()
        return origin.plan

    async def _find_origin(self, *, is_plan: bool = False) -> Origin | None:
        run_id, step = self._options.resume, self._options.resume_step
        if run_id is None:
            return None
        return await find_origin(self._stores, self._graph, run_id, step, is_plan=is_plan)

    async def _save_parameters(self) -> Mapping[str, Entry]:
        context = ParameterContext(user_name=self._config.username, ds_type="local")
        environ = configuration.parameter_variables()
        values = resolve(self._flow, self._options.parameters, environ, context=context)
        return await in_thread(
            save_parameters, {**constants_of(self._flow), **values}, self._stores.blobs
        )

    def _open_folder(self, stack: ExitStack) -> _Folder:
        """Choose the run's id, make its directory, take its lease and open its files."""
        layout, flow = self._stores.layout, self._graph.flow
        layout.sweep()
        run_id = new_run_id(self._created_us // 1000, int.from_bytes(os.urandom(4), "big"))
        layout.create_run(flow, run_id)
        if self._stores.replica is not None:
            self._stores.replica.mark_unshipped(flow, run_id)
        lease = Lease.acquire(
            str(layout.lock(flow, run_id)), run=f"{flow}/{run_id}", since_us=self._created_us
        )
        stack.callback(lease.release)
        durability = self._config.durability
        path = str(layout.journal(flow, run_id))
        journal = JournalWriter(path, lease, durability=durability)
        stack.callback(journal.close)
        reader = JournalReader(path)
        stack.callback(reader.close)
        log = LogWriter(str(layout.log(flow, run_id)), durability=durability)
        stack.callback(log.close)
        if self._options.run_id_file is not None:
            self._options.run_id_file.write_text(run_id)
        return _Folder(run_id, self._created_us, journal, reader, log)

    async def _began(
        self, folder: _Folder, parameters: bytes | Mapping[str, Entry], origin: Origin | None
    ) -> RunBeganRecord:
        flow = self._graph.flow
        if not isinstance(parameters, bytes):
            manifest = Manifest(flow, folder.run_id, PARAMETERS_STEP, "0", 0, parameters)
            parameters = manifest.pack()
        suffixes = suffixes_of(self._config.package_suffixes)
        code, self._note = await in_thread(
            code_of, self._flow, folder.run_id, self._stores, suffixes, now_ns=time.time_ns()
        )
        return RunBeganRecord(
            at_us=folder.created_us,
            flow=flow,
            run_id=folder.run_id,
            parameters=parameters,
            user=self._config.username,
            host=socket.gethostname(),
            tags=self._tags,
            origin_run_id=origin.run_id if origin else None,
            code=code | _begun_with(self._options, self._remote),
            graph=_plain(self._graph),
            slots=self._settings.max_workers,
            on_failure=self._settings.on_failure,
            rerun=(self._options.resume_step,) if self._options.resume_step else (),
        )

    async def _drive(
        self,
        folder: _Folder,
        began: RunBeganRecord,
        local: LocalExecutor,
        origin: Origin | None,
        observers: Sequence[Observer],
    ) -> RunDone:
        async with (
            self._beside(folder, began, origin) as beside,
            executor_of(local, self._remote, beside, folder.run_id, folder.journal) as executor,
        ):
            broker = beside.broker if beside else None
            observers = (beside.observe, *observers) if beside else observers
            return await self._driven(folder, began, executor, origin, observers, broker=broker)

    @asynccontextmanager
    async def _beside(
        self, folder: _Folder, began: RunBeganRecord, origin: Origin | None
    ) -> AsyncIterator["Beside | None"]:
        """What a datastore in an object store needs beside the driver."""
        if self._stores.replica is None:
            yield None
            return
        from engine.runtime.shipping import Freight, shipped  # noqa: PLC0415  # most runs are local
        from engine.stores.remote.shipper import Growing  # noqa: PLC0415

        layout = self._stores.layout
        journal = Growing(str(layout.journal(began.flow, began.run_id)), lambda: folder.journal.end)
        log = Growing(str(layout.log(began.flow, began.run_id)), lambda: folder.log.end)
        record = replace(record_of(began), pid=os.getpid())
        freight = Freight(
            record,
            journal,
            log,
            origins=origin.run_ids if origin else (),
            is_sure=origin is None or origin.is_settled,
        )
        async with shipped(self._stores.replica, freight) as beside:
            yield beside

    async def _driven(
        self,
        folder: _Folder,
        began: RunBeganRecord,
        executor: Executor,
        origin: Origin | None,
        observers: Sequence[Observer],
        *,
        broker: str | None,
    ) -> RunDone:
        record = replace(record_of(began), pid=os.getpid())
        recorder = Recorder(
            self._stores.metadata, record, lambda lines: folder.log.append(_logs(lines))
        )
        leaving = leaving_of(executor) if self._options.detach else None
        notes = [*(origin.warnings() if origin else ()), self._note]

        def seal() -> Seal:
            recorder.flush_lines()
            folder.log.sync()
            return {"journal": folder.journal.seal, "log": folder.log.seal}

        driver = Driver(
            DriverParts(
                scheduler=Scheduler(
                    self._graph,
                    slots=self._settings.max_workers,
                    on_failure=self._settings.on_failure,
                    max_splits=self._settings.max_num_splits,
                ),
                executor=executor,
                journal=folder.journal,
                jobs=JobFactory(
                    self._graph,
                    self._facts(began, broker),
                    folder.reader,
                    self._put_blob,
                    lambda entry: asyncio.to_thread(mapped_if_here, self._stores.blobs, entry),
                ),
                began=began,
                clock=self._clock,
                get_blob=self._get_blob,
                observers=(recorder.observe, self._watch, *observers),
                memo=origin.memo if origin else None,
                seal=seal,
                sync=folder.journal.sync if self._config.durability == "power" else None,
                warnings=tuple(note for note in notes if note),
                on_cancel=leaving.leave if leaving else None,
                lineage=frozenset(origin.run_ids if origin else ()),
            )
        )
        with told_what_is_left(leaving, began.run_id):
            return await run_recorded(driver, recorder)

    def _facts(self, began: RunBeganRecord, broker: str | None) -> RunFacts:
        return RunFacts(
            flow=began.flow,
            run_id=began.run_id,
            datastore=str(self._stores.layout.root),
            parameters=began.parameters,
            origin_run_id=began.origin_run_id,
            username=began.user,
            tags=began.tags,
            environments=_environments(self._decorators),
            resources=self._resources(),
            more_memory=self._remote.more_memory if self._remote else None,
            durability=self._stores.blobs.durability,
            verify=self._stores.blobs.verification,
            broker=broker,
            free_port=_free_port(self._graph),
        )

    def _resources(self) -> dict[str, dict[str, object]]:
        """What each step needs, for whichever executor runs it."""
        found = _resources(self._decorators)
        for step, needs in (self._remote.needs if self._remote else {}).items():
            found[step] = {**found.get(step, {}), "batch": needs}
        return found

    async def _put_blob(self, data: bytes | bytearray) -> str:
        digest, _ = await asyncio.to_thread(self._stores.blobs.write, [data])
        return digest

    async def _get_blob(self, digest: str) -> bytes:
        return await asyncio.to_thread(self._stores.blobs.read, digest)

    def _watch(self, event: RunEvent) -> None:
        if isinstance(event, TaskDone) and event.task.step == self._graph.end:
            self._end = event

    def _finished(self, folder: _Folder, began: RunBeganRecord, done: RunDone) -> FinishedRun:
        end = None
        if self._end is not None:
            record = decode(folder.reader.read(self._end.result))
            if isinstance(record, SucceededRecord):
                end = Manifest.unpack(record.manifest)
        return FinishedRun(
            flow=began.flow,
            run_id=began.run_id,
            status=done.status,
            blobs=self._stores.blobs,
            end=end,
            reason=done.reason,
            failure=done.failure,
            failed_task=str(done.failed_task) if done.failed_task else None,
            origin_run_id=began.origin_run_id,
        )


def _begun_with(options: RunOptions, remote: "RemoteRun | None") -> dict[str, Any]:  # Any: msgpack
    """What whoever takes the run over has to know, and the graph does not say."""
    found: dict[str, Any] = {}
    if options.decorators:
        found["with"] = list(options.decorators)
    if remote is not None:
        every = (n for needs in remote.needs.values() for n in (needs, needs.on_demand) if n)
        found["queues"] = sorted({needs.queue for needs in every})
    return found


def _plain(graph: Graph) -> dict[str, Any]:  # Any: plain msgpack values
    """The graph as values that msgpack takes and tools can read without this class."""
    plain: dict[str, Any] = to_builtins(graph)
    return plain


def _logs(outputs: Sequence[TaskOutput]) -> list[LogBatch]:
    return [LogBatch(o.task.step, o.task.task_id, o.attempt, o.stream, o.lines) for o in outputs]


def _free_port(graph: Graph) -> Callable[[str], int] | None:
    """What finds gangs a port of this machine, if the flow has any."""
    if not any(node.is_parallel for node in graph.nodes.values()):
        return None
    from engine.runtime.ports import Ports  # noqa: PLC0415  # most flows have no gang

    return Ports().take


def _environments(decorators: Decorators) -> dict[str, dict[str, str]]:
    found = {
        s: next((d for d in ds if isinstance(d, Environment)), None) for s, ds in decorators.items()
    }
    return {step: dict(d.vars) for step, d in found.items() if d is not None}


def _resources(decorators: Decorators) -> dict[str, dict[str, object]]:
    found = {
        s: next((d for d in ds if isinstance(d, Resources)), None) for s, ds in decorators.items()
    }
    return {step: asdict(d) for step, d in found.items() if d is not None}
