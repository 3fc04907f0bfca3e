import asyncio
import concurrent.futures
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import uvloop

from engine.errors import ExecutorError
from engine.executors import wire
from engine.executors.base import ExitKind, Job, JobEnded
from engine.executors.local import LocalExecutor
from engine.executors.zygote import fork_zygote
from engine.testing.executor_contract import watched
from tests.unit.executors.program import new_executor, new_zygote

DONE = b"report(b'done')"


async def run_one(source: bytes = DONE) -> JobEnded:
    async with watched(new_executor()) as seen:
        await seen.executor.submit([Job("a", source)])
        (end,) = await seen.until_ended("a")
        return end


@pytest.fixture(scope="module")
def _uvloop_initialized() -> None:
    """libuv keeps one pipe for signals from its first loop until the process ends."""
    uvloop.new_event_loop().close()


@pytest.mark.usefixtures("_uvloop_initialized")
def test_it_runs_on_uvloop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run_one()).outcome == b"done"


def test_it_runs_in_a_thread_that_is_not_the_main_one_and_sets_no_signal_handler() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        assert threads.submit(asyncio.run, run_one()).result().outcome == b"done"
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]


async def test_two_executors_in_one_process_keep_apart() -> None:
    async with watched(new_executor()) as one, watched(new_executor()) as two:
        await one.executor.submit([Job("a", b"report(b'one')")])
        await two.executor.submit([Job("a", b"report(b'two')")])
        (a,), (b,) = await one.until_ended("a"), await two.until_ended("a")
        assert (a.outcome, b.outcome) == (b"one", b"two")


async def test_a_thread_that_spawned_the_zygote_may_end() -> None:
    zygote = await asyncio.to_thread(new_zygote)
    assert not [t for t in threading.enumerate() if t.name == "gone"]
    async with watched(LocalExecutor(zygote)) as seen:
        await seen.executor.submit([Job("a", DONE)])
        (end,) = await seen.until_ended("a")
        assert end.outcome == b"done"


async def test_a_spec_larger_than_any_socket_buffer_arrives_whole() -> None:
    size = 5_000_000
    source = b"report(str(len('" + b"x" * size + b"')).encode())"
    assert (await run_one(source)).outcome == str(size).encode()


async def test_a_report_over_the_limit_is_refused_in_the_task() -> None:
    most = wire.REPORT_MAX_BYTES
    end = await run_one(f"report(b'x' * {most})".encode())
    assert end.outcome == b"x" * most
    end = await run_one(f"report(b'x' * {most + 1})".encode())
    assert (end.exit.kind, end.outcome) == (ExitKind.CODE, None)


async def test_large_reports_that_all_wait_for_room_are_read() -> None:
    names = [f"job-{number}" for number in range(8)]
    source = b"import time; time.sleep(0.2); report(b'x' * 100_000)"
    async with watched(new_executor()) as seen:
        await seen.executor.submit([Job(name, source) for name in names])
        ends = await seen.until_ended(*names)
        assert [len(end.outcome or b"") for end in ends] == [100_000] * 8


async def test_the_first_report_stands() -> None:
    assert (await run_one(b"report(b'1'); report(b'2')")).outcome == b"1"


async def test_a_spawned_program_that_cannot_boot_says_why() -> None:
    zygote = new_zygote("no such isolation")
    executor = LocalExecutor(zygote)
    async with watched(executor) as seen:
        await executor.submit([Job("a", DONE)])
        with pytest.raises(ExecutorError, match="fork server died"):
            await seen.until_ended("a")


FORKS = """
import asyncio
from engine.executors.zygote import fork_zygote

def load():
    raise ImportError("no module named worker")

zygote = fork_zygote(load)

async def news():
    from engine.executors.local import LocalExecutor
    executor = LocalExecutor(zygote)
    try:
        async for batch in executor.updates():
            print(batch)
    except Exception as error:
        print(error)
    await executor.aclose()

asyncio.run(news())
"""


def test_a_forked_zygote_that_cannot_load_says_why() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60)
    assert done.stdout == (
        "the fork server cannot start: ImportError('no module named worker')\n"
    ), done.stderr


async def test_a_job_is_lost_when_no_descriptors_are_left() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with watched(new_executor()) as seen:
        await seen.executor.submit([Job("before", DONE)])
        await seen.until_ended("before")
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), hard))
        try:
            await seen.executor.submit([Job("a", DONE)])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        (end,) = await seen.until_ended("a")
        assert end.exit.kind is ExitKind.LOST
        assert "Too many open files; raise the limit" in end.exit.detail
        await seen.executor.submit([Job("after", DONE)])
        assert (await seen.until_ended("after"))[0].outcome == b"done"


async def test_a_job_is_lost_when_no_process_can_be_made() -> None:
    """The zygote's own limit of processes: root is exempt, so an injected errno stands for it."""
    executor = new_executor()
    async with watched(executor) as seen:
        await executor.submit([Job("a", b"import time; time.sleep(60)")])
        await seen.until_started("a")
        refused = wire.encode(wire.Kind.JOB_REFUSED, 1, wire.REFUSED.pack(11))
        executor._handle(wire.FrameReader().feed(refused)[0])
        (end,) = await seen.until_ended("a")
        assert end.exit.detail.endswith("Resource temporarily unavailable")


async def test_a_zygote_that_talks_nonsense_is_given_up() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    zygote = new_zygote()
    real, zygote.control = zygote.control, ours
    executor = LocalExecutor(zygote)
    async with watched(executor):
        theirs.sendall(wire.HEAD.pack(wire.REPLY_MAX_BYTES + 1, 1, 1))
        with pytest.raises(ExecutorError, match="the fork server sent a frame of"):
            async for _ in executor.updates():
                pass
        real.close()
    theirs.close()


FORKING = """
import sys
sys.path.insert(0, {root!r})
from engine.executors.zygote import fork_zygote
assert "asyncio" not in sys.modules
warmed = []
def run_source(spec, report):
    exec(spec, {{"report": report, "warmed": warmed}})
    return 0
zygote = fork_zygote(lambda: run_source, lambda: warmed.append("warm"))
assert not warmed, "the warm-up is the zygote's"
import asyncio
from engine.executors.base import Job
from engine.executors.local import LocalExecutor
from engine.testing.executor_contract import watched
async def main():
    async with watched(LocalExecutor(zygote)) as seen:
        source = b"import sys; report(repr(('asyncio' in sys.modules, warmed)).encode())"
        for name in ("first", *map(str, range(30)), "last"):
            await seen.executor.submit([Job(name, source)])
            (end,) = await seen.until_ended(name)
            if name in ("first", "last"):
                print(end.outcome.decode())
asyncio.run(main())
assert zygote.is_gone()
"""


def test_a_zygote_forked_before_asyncio_gives_tasks_without_it_and_warms_up_when_many_come() -> (
    None
):
    program = FORKING.format(root=str(Path(__file__).parents[3]))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("(False, [])\n(False, ['warm'])\n", "")


def test_a_process_with_threads_is_not_forked() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="busy")
    thread.start()
    try:
        with pytest.raises(ExecutorError, match=r"runs threads \(.*busy"):
            fork_zygote(lambda: lambda spec, report: 0)
    finally:
        release.set()
        thread.join()


def test_a_zygote_that_was_never_used_can_be_killed() -> None:
    zygote = new_zygote()
    zygote.kill()
    assert zygote.is_gone()
    with pytest.raises(ProcessLookupError):
        os.kill(zygote.pid, 0)


def test_a_zygote_that_hangs_is_killed_after_the_time_out() -> None:
    zygote = new_zygote()
    os.kill(zygote.pid, signal.SIGSTOP)
    zygote.kill(timeout_s=0.05)
    assert zygote.is_gone()


async def test_closing_kills_a_zygote_that_hangs() -> None:
    executor = new_executor(close_timeout_s=0.05)
    async with watched(executor) as seen:
        await executor.submit([Job("a", DONE)])
        await seen.until_ended("a")
        os.kill(executor._zygote.pid, signal.SIGSTOP)
    assert executor._zygote.is_gone()
