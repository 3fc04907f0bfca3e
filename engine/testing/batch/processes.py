"""Containers as local processes: a session of their own, a folder of their own, killed whole.

A process gets the variables that a container of Batch gets, and of this process's own only what an
image would have. Its folder is its working directory, home and place for temporary files, and goes
when it ends. Memory is not limited, nor are processors.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct, field

from engine.testing.batch.fleet import Start
from engine.testing.batch.jobs import Container, Job, Outcome
from engine.testing.batch.places import Places

LINE_MAX_BYTES = 256 * 1024 - 26  # what an event of CloudWatch Logs holds
PIPE_S = 1.0
"""How long the output of an ended container is waited for, when what it started still holds it."""
_EXEC_S = 0.02

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

Write = Callable[[Sequence[str]], None]
Key = tuple[str, int]


def key_of(job: Job, node: int) -> Key:
    return job.id, node


def container_variables(start: Start) -> dict[str, str]:
    """What Batch adds to the environment of a container.

    Source: AWS Batch User Guide, "Job environment variables" (read 2026-11).
    """
    job, work = start.job, start.job.work
    variables = {
        "AWS_BATCH_JOB_ID": job.id,
        "AWS_BATCH_JOB_ATTEMPT": str(start.attempt),
        "AWS_BATCH_JQ_NAME": work.queue_arn.rpartition("/")[2],
        "AWS_BATCH_CE_NAME": job.place.rpartition("/")[2],
        "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE"
        if "FARGATE" in work.shown.get("platformCapabilities", ())
        else "AWS_ECS_EC2",
    }
    if job.index is not None:
        variables["AWS_BATCH_JOB_ARRAY_INDEX"] = str(job.index)
        variables["AWS_BATCH_JOB_ARRAY_SIZE"] = str(len(job.parent.children) if job.parent else 0)
    if work.is_multinode:
        variables["AWS_BATCH_JOB_ID"] = f"{job.id}#{start.node}"
        variables["AWS_BATCH_JOB_NODE_INDEX"] = str(start.node)
        variables["AWS_BATCH_JOB_NUM_NODES"] = str(len(work.nodes))
        variables["AWS_BATCH_JOB_MAIN_NODE_INDEX"] = str(work.main_node)
        if start.node != work.main_node:
            variables["AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"] = "127.0.0.1"
    return variables


def role_of(container: Container) -> str:
    """The role that a container takes; "" for none."""
    return str(container.properties.get("jobRoleArn") or "")


class ProcessRunner(Struct):
    """Runs containers as processes. `variables` are given to each of them."""

    variables: Mapping[str, str] = field(default_factory=dict)
    places: Places = field(default_factory=Places)
    running: dict[Key, asyncio.subprocess.Process] = field(default_factory=dict)

    async def run(self, start: Start, started: Callable[[], None], write: Write) -> Outcome:
        """Run a container to its end; `started` is called when it runs, `write` with its lines."""
        container = start.job.work.nodes[start.node]
        folder = tempfile.mkdtemp(prefix="aflow-batch-")
        key = key_of(start.job, start.node)
        if why := self.places.refusal(container.image, role_of(container)):
            return Outcome(None, why)
        try:
            async with _output(write) as stdout:
                argv, env = self._command(start, container, folder)
                try:
                    process = await asyncio.create_subprocess_exec(
                        *argv,
                        env=env,
                        cwd=folder,
                        stdin=asyncio.subprocess.DEVNULL,
                        stdout=stdout,
                        stderr=stdout,
                        start_new_session=True,
                        preexec_fn=_die_with_us,
                    )
                except (OSError, ValueError) as error:
                    return Outcome(None, f"CannotStartContainerError: {error}")
                finally:
                    os.close(stdout)
                self.running[key] = process
                started()
                try:
                    code = await process.wait()
                finally:
                    del self.running[key]
                    _signal_group(process.pid, signal.SIGKILL)
            return await self._outcome(start, code)
        finally:
            await asyncio.to_thread(_clear, folder)

    def signal(self, job: Job, node: int, number: int) -> None:
        """Send a signal to a container's first process, or kill them all."""
        process = self.running.get(key_of(job, node))
        if process is None:
            return
        if number == signal.SIGKILL:
            _signal_group(process.pid, number)
        else:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    def kill_all(self) -> None:
        for process in self.running.values():
            _signal_group(process.pid, signal.SIGKILL)

    def _command(
        self, start: Start, container: Container, folder: str
    ) -> tuple[Sequence[str], dict[str, str]]:
        # "python" of the job is the one that runs this, as if an image had been made of it.
        path = f"{os.path.dirname(sys.executable)}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        path = self.places.path(container.image, path)
        image = {"PATH": path, "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"}
        role = self.places.variables(role_of(container))
        given = {**self.variables, **role, **container.environment, **container_variables(start)}
        return container.command or ("true",), {**image, **given}

    async def _outcome(self, start: Start, code: int) -> Outcome:
        return Outcome(code if code >= 0 else 128 - code)


@asynccontextmanager
async def _output(write: Write) -> AsyncIterator[int]:
    """A pipe's writing end; what comes through is told line by line, soon after it was written."""
    read, write_end = os.pipe()
    reader = asyncio.StreamReader(limit=LINE_MAX_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", buffering=0)
    )
    try:
        async with asyncio.TaskGroup() as group:
            pumping = group.create_task(_pump(reader, write))
            yield write_end
            await asyncio.wait([pumping], timeout=PIPE_S)
            pumping.cancel()
    finally:
        transport.close()


async def _pump(reader: asyncio.StreamReader, write: Write) -> None:
    rest = b""
    try:
        while chunk := await reader.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            while len(rest) >= LINE_MAX_BYTES:
                lines.append(rest[:LINE_MAX_BYTES])
                rest = rest[LINE_MAX_BYTES:]
            _tell(lines, write)
    finally:
        _tell([rest], write)


def _tell(lines: Sequence[bytes], write: Write) -> None:
    # CloudWatch Logs takes no event without text.
    if texts := [line.decode("utf-8", "replace") for line in lines if line]:
        write(texts)


def _clear(folder: str) -> None:
    """Kill what left the container's session, as nothing leaves a container, and its folder."""
    mark = f"TMPDIR={folder}".encode()
    seen_none = 0
    while seen_none < 2:  # in the midst of an exec a process has no environment to be known by
        seen_none = 0 if _kill_marked(mark) else seen_none + 1
        time.sleep(_EXEC_S)
    shutil.rmtree(folder, ignore_errors=True)


def _kill_marked(mark: bytes) -> int:
    """How many processes with `mark` among their variables got SIGKILL."""
    killed = 0
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # gone, or somebody else's
            if mark in entry.read_bytes().split(b"\0"):
                os.kill(int(entry.parent.name), signal.SIGKILL)
                killed += 1
    return killed


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _die_with_us() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
