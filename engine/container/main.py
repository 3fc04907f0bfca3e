"""One task in a container, as if it ran on the driver's machine: the same worker, supervised by the
same executor, over a cache of its own.

Exit codes: 0 the task succeeded; 1 it failed and has said why; 143 it was told to end by SIGTERM;
otherwise that of the process, 128 and the signal's number, 124 at its deadline, or one of
EngineError's when aflow itself could not go on, which then says so on stderr (92 where S3 denies it
access, as the bootstrap has it).
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from msgspec.structs import replace

from engine import config as configuration
from engine.container.commit import Commits
from engine.container.orders import Assignment, fetch_code, fetch_orders
from engine.container.words import Words, keys_of
from engine.datastores import open_blobs
from engine.errors import EXIT_BUG, EXIT_RUN_FAILED, EXIT_TIMEOUT, EngineError, StoreDeniedError
from engine.executors.base import Exit, ExitKind, Job, JobEnded, JobOutput, JobStarted
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
    """Run the task that this container was started for, and exit."""
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
        boot, order = await fetch_orders(blobs, assignment)
        return await _Supervisor(blobs, folder, boot, order, assignment.place).run()
    finally:
        await blobs.aclose()
        await asyncio.to_thread(_remove, folder)


def _remove(folder: Path) -> None:
    import shutil  # noqa: PLC0415  # at the end, beside nothing that waits

    shutil.rmtree(folder, ignore_errors=True)


class _Supervisor:
    def __init__(
        self, blobs: BlobStore, folder: Path, boot: Boot, order: Order, place: str
    ) -> None:
        self._blobs = blobs
        self._folder = folder
        self._boot = boot
        self._order = order
        self._spec = TaskSpec.unpack(order.spec)
        key_of = keys_of(boot.flow, boot.run_id, order.name, place)
        self._words = Words(blobs, order.name, key_of, wall_clock_us)
        self._is_terminated = False

    async def run(self) -> int:
        """Run the task to its end and return the exit code of the container."""
        layout = create_layout(self._folder / "store")
        directory = layout.blob_directory()
        downloads = Downloads(self._blobs, directory)
        code = self._folder / "code"
        await fetch_code(self._boot, downloads, directory, code)
        async with broker(downloads.fetch) as socket:
            executor = LocalExecutor(
                _zygote(self._boot, code), LocalExecutorConfig(kill_grace_s=TERMINATE_GRACE_S)
            )
            try:
                ended = await self._watch(executor, str(layout.root), socket)
            finally:
                await executor.aclose()
        commits = Commits(self._blobs, directory, self._spec)
        return await self._finish(ended, commits)

    async def _watch(self, executor: LocalExecutor, root: str, socket: str) -> JobEnded:
        order = self._order
        spec = replace(self._spec, datastore=root, broker=socket)
        loop = asyncio.get_running_loop()
        with unwrapped():
            async with asyncio.TaskGroup() as group:
                saying = group.create_task(self._words.run(), name="words")
                loop.add_signal_handler(signal.SIGTERM, self._terminate, executor, group)
                try:
                    await executor.submit([Job(order.name, spec.pack(), order.deadline_s)])
                    return await self._until_ended(executor)
                finally:
                    saying.cancel()
                    loop.remove_signal_handler(signal.SIGTERM)
                    # What is done is committed and told yet, in the half minute that Batch gives.
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise AssertionError  # the group raises or the block returns

    async def _until_ended(self, executor: LocalExecutor) -> JobEnded:
        async for updates in executor.updates():
            for update in updates:
                if isinstance(update, JobEnded):
                    return update
                if isinstance(update, JobStarted | JobOutput):
                    await self._words.take(update)
        raise AssertionError  # an executor ends every job before its updates

    def _terminate(self, executor: LocalExecutor, group: asyncio.TaskGroup) -> None:
        if not self._is_terminated:
            self._is_terminated = True
            reason = "the container got SIGTERM"
            group.create_task(executor.cancel([self._order.name], reason=reason))

    async def _finish(self, ended: JobEnded, commits: Commits) -> int:
        """Commit, say the last word, and return the exit code."""
        if ended.exit.kind is ExitKind.CANCELLED and self._is_terminated:
            # Why is known to who sent the signal, so what it means is not for us to say.
            await self._words.flush()
            return EXIT_TERMINATED
        report = Report.unpack(ended.outcome) if ended.outcome is not None else None
        if report is not None:
            report = await commits.commit(report)
        ending = Ending(
            kind=str(ended.exit.kind),
            code=ended.exit.code,
            detail=ended.exit.detail,
            started_us=ended.started_us,
            ended_us=ended.ended_us,
            report=report.pack() if report else None,
        )
        await self._words.end(ending)
        if report is not None:
            return EXIT_RUN_FAILED if report.failure else 0
        return _exit_code(ended.exit)


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
