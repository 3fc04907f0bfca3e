"""The nets of tests/conftest.py, each shown to catch what it is for."""

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.house import leaks
from tests.house.leaks import MARK, Belongings, left_behind, marked, watched_tasks
from tests.house.loop_guard import BlockedLoopError, loop_guard

pytestmark = pytest.mark.unguarded


@pytest.fixture
def product() -> Callable[[str], ModuleType]:
    """Compile a source as a module of a package that the guard watches."""

    def compile_module(source: str) -> ModuleType:
        module = ModuleType("product.part")
        exec(source, module.__dict__)
        return module

    return compile_module


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("time.sleep(0)", "time.sleep"),
        ("subprocess.Popen(['sleep', '9']).wait()", "Popen.wait"),
        ("os.read(os.pipe()[0], 1)", "os.read"),
        ("socket.socketpair()[0].recv(1)", "socket.recv"),
        ("queue.Queue().get()", "Queue.get"),
        ("threading.Event().wait()", "Event.wait"),
        ("concurrent.futures.Future().result()", "Future.result"),
    ],
)
def test_a_blocking_call_of_the_product_on_the_loop_raises_and_is_remembered(
    product: Callable[[str], ModuleType], call: str, name: str
) -> None:
    # A process of its own, so that what the call opened before it was stopped goes with it.
    script = f"""if 1:
        import asyncio, types
        from tests.house.loop_guard import BlockedLoopError, loop_guard
        module = types.ModuleType("product.part")
        exec('''if 1:
            import concurrent.futures, os, queue, socket, subprocess, threading, time
            async def work():
                try:
                    {call}
                except BaseException as error:
                    return type(error).__name__
        ''', module.__dict__)
        with loop_guard("product") as offences:
            print(asyncio.run(module.work()), offences)
        subprocess = module.subprocess
        subprocess.run(["pkill", "-P", str(module.os.getpid())])
    """
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    assert said.startswith("BlockedLoopError")
    assert f"{name}, which blocks the event loop" in said


def test_the_same_call_is_free_off_the_loop_and_in_tests_themselves(
    product: Callable[[str], ModuleType],
) -> None:
    module = product("import time\ndef nap():\n    time.sleep(0)\n")

    async def scenario() -> None:
        time.sleep(0)  # noqa: ASYNC251  by a test, not by the product
        await asyncio.to_thread(module.nap)

    with loop_guard("product") as offences:
        module.nap()
        asyncio.run(scenario())
    assert offences == []


def test_asyncio_streams_and_processes_pass_the_guard(
    product: Callable[[str], ModuleType],
) -> None:
    module = product(
        "import asyncio\n"
        "async def work():\n"
        "    p = await asyncio.create_subprocess_exec('echo', '1', stdout=-1)\n"
        "    return (await p.communicate())[0]\n"
    )
    with loop_guard("product") as offences:
        assert asyncio.run(module.work()) == b"1\n"
    assert offences == []


def test_a_callback_that_computes_for_long_is_told_afterwards() -> None:
    async def busy() -> None:
        end = time.thread_time() + 0.6
        while time.thread_time() < end:
            pass

    with loop_guard("product") as offences:
        asyncio.run(busy())
    assert len(offences) == 1
    assert "computed on the event loop for 0.6" in offences[0]


def test_what_the_collector_of_garbage_takes_is_not_the_callbacks() -> None:
    async def collecting() -> None:
        end = time.thread_time() + 0.6
        while time.thread_time() < end:
            gc.collect()

    with loop_guard("product") as offences:
        asyncio.run(collecting())
    assert offences == []


def test_the_guard_is_gone_after_its_block() -> None:
    before = (time.sleep, socket.socket.recv, asyncio.Handle._run, [*gc.callbacks])
    with loop_guard("product"):
        assert time.sleep is not before[0]
    assert (time.sleep, socket.socket.recv, asyncio.Handle._run, gc.callbacks) == before
    assert "recv" not in vars(socket.socket)


def test_a_pending_task_is_told() -> None:
    async def careless() -> None:
        asyncio.create_task(asyncio.sleep(9), name="forgotten")  # noqa: RUF006  the fault
        await asyncio.sleep(0)

    with watched_tasks() as pending:
        asyncio.run(careless())
    assert len(pending) == 1
    assert "forgotten" in pending[0]


def test_an_open_descriptor_and_a_running_thread_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "GRACE_S", 0.05)
    before, go_on = Belongings.now(), threading.Event()
    reader, writer = os.pipe()
    thread = threading.Thread(target=go_on.wait, name="lingerer")
    thread.start()
    told = left_behind(before, None)
    go_on.set()
    thread.join()
    os.close(reader)
    os.close(writer)
    assert [t.split(":")[0] for t in told] == [
        "thread lingerer",
        f"descriptor {reader}",
        f"descriptor {writer}",
    ]
    assert left_behind(before, None) == []


def test_an_orphan_of_an_orphan_is_told_and_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(leaks, "GRACE_S", 0.05)
    mark = f"this very test of {os.getpid()}"
    monkeypatch.setenv(MARK, mark)
    before = Belongings.now()
    told_pid = tmp_path / "pid"
    subprocess.run(
        ["sh", "-c", f"setsid sleep 60 >/dev/null 2>&1 & echo $! >{told_pid}"], check=True
    )
    pid = int(told_pid.read_text())
    while marked(mark).get(pid) != "sleep 60":  # it is the shell's fork at first
        time.sleep(0.01)
    assert left_behind(before, mark) == [f"process {pid}: sleep 60"]
    assert left_behind(before, mark) == []


def test_a_server_under_test_has_longer_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "GRACE_S", 0.0)
    before = Belongings.now()
    ending = "import time; time.sleep(1)"
    server = subprocess.Popen([sys.executable, "-c", ending, "-m", "engine.testing.servers"])
    assert left_behind(before, None) == []
    assert server.wait() == 0


def test_settings_from_outside_do_not_reach_a_test() -> None:
    strangers = [n for n in os.environ if n.startswith(("AFLOW_", "AWS_"))]
    assert strangers == []


def test_blocked_loop_error_is_a_failed_assertion() -> None:
    assert issubclass(BlockedLoopError, AssertionError)
