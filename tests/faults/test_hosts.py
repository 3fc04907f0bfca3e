"""R-21: a run inside of programs that have loops, threads and signal handlers of their own.

How the loop turns meanwhile is measured by python -m tests.faults.loop_lag.
"""

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from jupyter_client.manager import AsyncKernelManager

from engine import Engine, Flow, FlowSpec, Parameter, current, step
from engine.runtime import RunOptions
from engine.scheduler.progress import RunEvent, TaskOutput
from tests.faults.jobs import gone, is_alive
from tests.faults.loop_lag import lags
from tests.faults.test_workers import descendants
from tests.unit.runtime.flows import Item, Naps, Quick

ROOT = Path(__file__).parents[2]
TENANT = contextvars.ContextVar("tenant", default="nobody")
SIGNALS = [s for s in signal.Signals if s not in (signal.SIGKILL, signal.SIGSTOP)]

pytestmark = pytest.mark.usefixtures("datastore")


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


@contextmanager
def handlers_stay() -> Iterator[None]:
    before = handlers(), signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before[1])
    yield
    after = handlers(), signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(after[1])
    assert after == before


def host(folder: Path, source: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a program that is a host."""
    (folder / "host.py").write_text(source)
    return subprocess.run(
        [sys.executable, *words, "host.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


# -- a script, a test, a thread, a step ------------------------------------------------------------

SCRIPT = """
import asyncio
from engine import Engine, FlowSpec, step


class Made(FlowSpec):
    @step
    def start(self):
        self.x = 7
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    print(asyncio.run(Engine.run(Made)).data.x, Engine.run_sync(Made).data.x)
"""


@pytest.mark.parametrize("words", [(), ("-X", "dev")], ids=["as usual", "in development mode"])
def test_r21_in_a_script(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = host(tmp_path, SCRIPT, *words)
    assert (done.stdout, done.stderr) == ("7 7\n", "")


async def test_r21_in_a_test_with_a_flow_of_the_tests_own() -> None:
    class Local(FlowSpec):
        @step
        def start(self) -> None:
            self.x = 1
            self.next(self.end)

        @step
        def end(self) -> None:
            self.x += 1

    with handlers_stay():
        assert (await Engine.run(Local)).data.x == 2


def test_r21_in_a_thread_and_no_signal_handler_is_installed() -> None:
    done: list[int] = []
    seen: list[list[object]] = []

    def work() -> None:
        done.append(Engine.run_sync(Quick).data.x)
        seen.append(handlers())

    with handlers_stay():
        before = handlers()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert (done, seen) == ([1], [before])


class Outer(FlowSpec):
    @step
    def start(self) -> None:
        self.inner = Engine.run_sync(Quick).run_id
        self.mine = current.run_id
        self.next(self.end)

    @step
    def end(self) -> None:
        self.x = asyncio.run(Engine.run(Quick)).data.x


async def test_r21_inside_a_step_of_another_flow() -> None:
    run = await Engine.run(Outer)
    assert run.data.x == 1
    assert run.data.mine == run.id
    inner = await asyncio.to_thread(lambda: Flow("Quick")[run.data.inner].successful)
    assert inner is True


async def test_r21_two_runs_at_once_on_one_loop(tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    mended.touch()
    async with asyncio.TaskGroup() as group:
        runs = [
            group.create_task(Engine.run(Item, params={"mended": str(mended)})) for _ in range(2)
        ]
        other = group.create_task(Engine.run(Quick))
    assert {run.result().data.total for run in runs} == {3}
    assert len({run.result().id for run in runs}) == 2
    assert other.result().data.x == 1


# -- what a host has, it keeps ---------------------------------------------------------------------


def whose(context: Any) -> str:  # Any: a ParameterContext
    return TENANT.get()


class Owned(FlowSpec):
    tenant = Parameter("tenant", default=whose)

    @step
    def start(self) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


async def test_r21_context_variables_are_the_callers_whoever_is_called() -> None:
    seen: set[str] = set()

    def observe(event: RunEvent) -> None:
        seen.add(TENANT.get())

    async def run_as(tenant: str) -> str:
        TENANT.set(tenant)
        async with Engine() as engine:
            done = await engine.execute(Owned, RunOptions(), observers=(observe,))
        return f"{done.data.tenant} {TENANT.get()}"

    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(run_as(name)) for name in ("ada", "bob")]
    assert [run.result() for run in runs] == ["ada ada", "bob bob"]
    assert seen == {"ada", "bob"}
    assert TENANT.get() == "nobody"


@pytest.mark.unguarded  # run_sync blocks a running loop: that is what it is for
async def test_r21_context_variables_follow_into_the_thread_of_run_sync() -> None:
    token = TENANT.set("eve")
    assert Engine.run_sync(Owned).data.tenant == "eve"
    TENANT.reset(token)


async def test_r21_cancelling_the_awaiter_leaves_no_process_and_the_other_run_alone() -> None:
    before = descendants(os.getpid())
    events: asyncio.Queue[RunEvent] = asyncio.Queue()
    async with Engine() as engine:
        runs = [
            asyncio.create_task(engine.execute(Naps, observers=(events.put_nowait,)))
            for _ in range(2)
        ]
        for _ in runs:
            while not isinstance(await events.get(), TaskOutput):
                pass
        started = descendants(os.getpid()) - before
        runs[0].cancel()
        await asyncio.wait({runs[0]})
        alive = {pid for pid in started if is_alive(pid)}
        assert len(alive) == len(started) / 2, "those of the other run"
        assert not runs[1].done()
        runs[1].cancel()
        await asyncio.wait({runs[1]})
        assert runs[0].cancelled()
        assert runs[1].cancelled()
    assert not {pid for pid in started if is_alive(pid)}


# -- a web server ----------------------------------------------------------------------------------


async def test_r21_a_web_server_outlives_the_run_of_a_client_that_went_away() -> None:
    running: asyncio.Queue[RunEvent] = asyncio.Queue()
    ended = asyncio.Event()

    async def nap(request: web.Request) -> web.Response:
        try:
            async with Engine() as engine:
                await engine.execute(Naps, observers=(running.put_nowait,))
        finally:
            ended.set()
        return web.Response()

    async def quick(request: web.Request) -> web.Response:
        return web.json_response((await Engine.run(Quick)).data.x)

    before = descendants(os.getpid())
    app = web.Application()
    app.add_routes([web.get("/nap", nap), web.get("/quick", quick)])
    runner = web.AppRunner(app, handler_cancellation=True, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (address,) = runner.addresses
    url = f"http://127.0.0.1:{address[1]}"

    async with ClientSession() as client:
        going = asyncio.create_task(client.get(f"{url}/nap"))
        while not isinstance(await running.get(), TaskOutput):
            pass
        started = descendants(os.getpid()) - before
        assert len(started) >= 2, "a fork server and a task"
        async with client.get(f"{url}/quick") as answer:
            assert await answer.json() == 1, "beside the run that naps"
        going.cancel()
        await asyncio.wait({going})
        await ended.wait()
        assert not {pid for pid in started if is_alive(pid)}
        async with client.get(f"{url}/quick") as answer:
            assert await answer.json() == 1, "after it"
    await runner.cleanup()


SERVER = """
import asyncio, os
from aiohttp import web
from engine import Engine
from engine.scheduler.progress import TaskOutput
from tests.unit.runtime.flows import Naps


def observe(event):
    if isinstance(event, TaskOutput):
        print("asleep", flush=True)


async def run(app):
    async with Engine() as engine, asyncio.TaskGroup() as group:
        task = group.create_task(engine.execute(Naps, observers=(observe,)))
        yield
        task.cancel()

app = web.Application()
app.cleanup_ctx.append(run)
web.run_app(app, host="127.0.0.1", port=0, print=None)
print("stopped in order", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_r21_a_web_server_that_is_stopped_ends_its_runs_in_its_own_order(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "server.py",
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    async with asyncio.timeout(30):
        assert await server.stdout.readline() == b"asleep\n"
        started = descendants(server.pid)
        assert len(started) >= 2
        server.send_signal(number)
        assert await server.stdout.read() == b"stopped in order\n"
        await server.wait()
    assert all([await gone(pid) for pid in started])


# -- Jupyter ---------------------------------------------------------------------------------------

CELL = """
from engine import Engine, FlowSpec, step

class Cell(FlowSpec):
    @step
    def start(self):
        self.items = [1, 2, 3]
        self.next(self.each, foreach="items")

    @step
    def each(self):
        self.y = self.input ** 2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(i.y for i in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass

run = await Engine.run(Cell)
print(run.data.total)
"""
NAP = """
import os
from tests.unit.runtime.flows import Naps
from engine.scheduler.progress import TaskOutput

async with Engine() as engine:
    async for event in engine.stream(Naps):
        if isinstance(event, TaskOutput):
            print("asleep", os.getpid(), flush=True)
"""


class Kernel:
    """A Jupyter kernel, and what its cells print."""

    def __init__(self, client: Any) -> None:  # Any: jupyter_client has no types
        self._client = client

    def begin(self, source: str) -> None:
        self._client.execute(source, stop_on_error=False)

    async def until(self, kind: str) -> str:
        """Read on until a message of a kind; return its text, or the error's name."""
        async with asyncio.timeout(60):
            while True:
                message = await self._client.get_iopub_msg()
                content = message["content"]
                if message["msg_type"] == kind == "stream":
                    return str(content["text"])
                if message["msg_type"] == "error":
                    assert kind == "error", "\n".join(content["traceback"])
                    return str(content["ename"])

    async def say(self, source: str) -> str:
        self.begin(source)
        return await self.until("stream")


@pytest.mark.unguarded  # the kernel's manager starts its process on the loop
async def test_r21_in_a_jupyter_kernel_also_when_a_cell_is_interrupted(tmp_path: Path) -> None:
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(tmp_path / "ipc"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    await manager.start_kernel(cwd=str(tmp_path), env=environment)
    client = manager.client()
    client.start_channels()
    kernel = Kernel(client)
    try:
        await client.wait_for_ready(timeout=60)
        assert await kernel.say(CELL) == "14\n"
        assert await kernel.say("print(Engine.run_sync(Cell).data.total)") == "14\n"
        pid = int((await kernel.say(NAP)).split()[-1])
        started = descendants(pid)
        assert len(started) >= 2
        await manager.interrupt_kernel()
        assert await kernel.until("error") in ("KeyboardInterrupt", "CancelledError")
        assert all([await gone(process) for process in started])
        assert await kernel.say("print((await Engine.run(Cell)).data.total)") == "14\n"
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)


# -- the loop turns --------------------------------------------------------------------------------


@pytest.mark.serial
async def test_r21_the_loop_of_a_host_turns_while_many_tasks_run(record_property: Any) -> None:
    found = await lags(tasks=200)
    assert len(found) > 20
    assert found[int(len(found) * 0.99)] < 0.25  # 50 ms where nothing else runs; see loop_lag
    record_property("tasks run beside a ticking loop", 200)
