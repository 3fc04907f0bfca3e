"""The tasks of a container, as if they ran on the driver's machine: the same worker, supervised by
the same executor, over a cache of its own. There is one task, or several one after the other, each
with an end of its own.

Exit codes: 0 the task succeeded; 1 it failed and has said why; 143 it was told to end by SIGTERM;
otherwise that of the process, 128 and the signal's number, 124 at its deadline, or one of
EngineError's when aflow itself could not go on, which then says so on stderr (92 where S3 denies it
access, as the bootstrap has it). Of several tasks: 0 all succeeded, 143, or 1.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from msgspec.structs import replace

from engine import config as configuration
from engine.container.commit import Commits
from engine.container.gang import GangNode
from engine.container.orders import Assignment, fetch_code, fetch_orders
from engine.container.words import Words, keys_of
from engine.datastores import open_blobs
from engine.errors import EXIT_BUG, EXIT_RUN_FAILED, EXIT_TIMEOUT, EngineError, StoreDeniedError
from engine.executors.base import (
    Exit,
    ExitKind,
    Job,
    JobEnded,
    JobUpdate,
)
from engine.executors.batch_reasons import EXIT_DENIED
from engine.executors.local import LocalExecutor, LocalExecutorConfig, wall_clock_us
from engine.executors.zygote import Zygote, spawn_zygote
from engine.groups import unwrapped
from engine.stores.base import BlobStore
from engine.stores.layout import create_layout
from engine.stores.remote.broker import broker
from engine.stores.remote.downloads import Downloads
from engine.stores.remote.parcels import Boot, Ending, Order
from engine.stores.taskspec import Report, TaskSpec
from engine.worker import main as worker

EXIT_TERMINATED = 128 + signal.SIGTERM
TERMINATE_GRACE_S = 8.0
"""Between the SIGTERM that a container gets and the SIGKILL of its task. Batch kills the container
after 30 s; what the task printed has to be in the store by then (FAULTS R-14: 20 s)."""


def main() -> NoReturn:
    """Run the tasks that this container was started for, and exit."""
    began = time.monotonic()
    try:
        variables = configuration.job_variables()
        code = asyncio.run(_run(variables))
    except EngineError as error:
        told = f"error[{error.code}]: {error.message}"
        sys.stderr.write(f"{told}\n  hint: {error.hint}\n" if error.hint else f"{told}\n")
        code = EXIT_DENIED if isinstance(error, StoreDeniedError) else error.exit_code
    took_s = time.monotonic() - began
    sys.stderr.write(f"aflow: the container's task took {took_s:.1f} s and ends with {code}\n")
    sys.stderr.flush()
    os._exit(code)  # obstore's threads need no teardown


async def _run(variables: Mapping[str, str]) -> int:
    assignment = Assignment.read(variables)
    config = configuration.load(environ=variables)
    blobs = open_blobs(config)
    folder = Path(tempfile.mkdtemp(prefix="aflow-task-"))
    try:
        boot, orders = await fetch_orders(blobs, assignment)
        return await Supervisor(blobs, folder, boot, assignment).run(orders)
    finally:
        # There is nothing left that a signal could end sooner.
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        await blobs.aclose()
        await asyncio.to_thread(_remove, folder)


def _remove(folder: Path) -> None:
    import shutil  # noqa: PLC0415  # at the end, beside nothing that waits

    shutil.rmtree(folder, ignore_errors=True)


class Supervisor:
    """Runs the tasks of a container, one after the other, by one fork server."""

    def __init__(self, blobs: BlobStore, folder: Path, boot: Boot, assignment: Assignment) -> None:
        self._blobs = blobs
        self._boot = boot
        self._assignment = assignment
        node = assignment.node
        self._gang = GangNode(blobs, boot, node) if node else None
        self._code = folder / "code"
        self._layout = create_layout(folder / "store")
        self._directory = self._layout.blob_directory()
        self._downloads = Downloads(blobs, self._directory)
        self._told = asyncio.Event()  # by SIGTERM, to end
        self._running = ""  # the job's name

    async def run(self, orders: Sequence[Order]) -> int:
        """Run the tasks to their ends and return the exit code of the container."""
        await fetch_code(self._boot, self._downloads, self._directory, self._code)
        loop = asyncio.get_running_loop()
        codes: list[int] = []
        async with broker(self._downloads.fetch) as socket:
            executor = LocalExecutor(
                _zygote(self._boot, self._code), LocalExecutorConfig(kill_grace_s=TERMINATE_GRACE_S)
            )
            try:
                with unwrapped():
                    async with asyncio.TaskGroup() as group:
                        loop.add_signal_handler(signal.SIGTERM, self._terminate, executor, group)
                        updates = executor.updates()
                        for order in orders:
                            if self._told.is_set():
                                break
                            codes.append(await self._run_one(order, executor, updates, socket))
            finally:
                # What is done is committed and told yet, in the half minute that Batch gives.
                loop.add_signal_handler(signal.SIGTERM, self._told.set)
                await executor.aclose()
        code = self._code_of(codes, len(orders))
        if self._gang is not None:
            await self._gang.leave(self._told, is_well=code == 0)
        return code

    def _code_of(self, codes: Sequence[int], count: int) -> int:
        """The exit code of the container, by those of its tasks, of which there are `count`."""
        if count == 1 and codes:
            return codes[0]
        return EXIT_TERMINATED if self._told.is_set() else EXIT_RUN_FAILED if any(codes) else 0

    async def _run_one(
        self,
        order: Order,
        executor: LocalExecutor,
        updates: AsyncIterator[Sequence[JobUpdate]],
        socket: str,
    ) -> int:
        """Run one task, commit it, say its last word, and return its exit code."""
        key_of = keys_of(self._boot.flow, self._boot.run_id, order.name, self._assignment.place)
        words = Words(self._blobs, order.name, key_of, wall_clock_us)
        spec = TaskSpec.unpack(order.spec)
        key = self._gang.commit_key if self._gang else None
        commits = Commits(self._blobs, self._directory, spec, key)
        if self._assignment.is_repeated and (report := await commits.committed()):
            now_us = wall_clock_us()
            return await _end(words, Exit(ExitKind.RETURNED), (now_us, now_us), report)
        spec = replace(spec, datastore=str(self._layout.root), broker=socket)
        if (node := self._assignment.node) is not None:
            spec = replace(spec, main_ip=node.main_ip)
        self._running = order.name
        async with asyncio.TaskGroup() as group:
            group.create_task(words.run(), name="words")
            await executor.submit([Job(order.name, spec.pack(), order.deadline_s)])
            ended = await _until_ended(updates, words)
            words.stop()
        self._running = ""
        if ended.exit.kind is ExitKind.CANCELLED and self._told.is_set():
            # Why is known to who sent the signal, so what it means is not for us to say.
            await words.flush()
            return EXIT_TERMINATED
        report = Report.unpack(ended.outcome) if ended.outcome is not None else None
        if report is not None:
            report = await commits.commit(report)
        return await _end(words, ended.exit, (ended.started_us, ended.ended_us), report)

    def _terminate(self, executor: LocalExecutor, group: asyncio.TaskGroup) -> None:
        if not self._told.is_set():
            self._told.set()
            names = [self._running] if self._running else []
            group.create_task(executor.cancel(names, reason="the container got SIGTERM"))


async def _until_ended(updates: AsyncIterator[Sequence[JobUpdate]], words: Words) -> JobEnded:
    async for batch in updates:
        for update in batch:
            if isinstance(update, JobEnded):
                return update
            await words.take(update)
    raise AssertionError  # an executor ends every job before its updates


async def _end(words: Words, exit: Exit, times_us: tuple[int, int], report: Report | None) -> int:
    packed = report.pack() if report else None
    await words.end(Ending(str(exit.kind), exit.code, exit.detail, *times_us, packed))
    if report is not None:
        return EXIT_RUN_FAILED if report.failure else 0
    return _exit_code(exit)


def _zygote(boot: Boot, code: Path) -> Zygote:
    flow: str | bytes = boot.program
    if not boot.program:
        flow = str(code / boot.target) if boot.is_file else boot.target
    # The first two are what the driver had; the rest is the image's own.
    path = (str(code), *sys.path) if boot.code else tuple(sys.path)
    cwd = str(code) if boot.code else str(Path.cwd())
    packed = worker.Boot(flow, tuple(boot.decorators), boot.isolation, path, cwd).pack()
    return spawn_zygote(worker.zygote_argv(), packed)


def _exit_code(exit: Exit) -> int:
    match exit.kind:
        case ExitKind.CODE:
            return exit.code or EXIT_BUG
        case ExitKind.SIGNAL:
            return 128 + exit.code
        case ExitKind.TIMED_OUT:
            return EXIT_TIMEOUT
        case _:
            return EXIT_BUG
