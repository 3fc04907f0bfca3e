"""R-03, R-18, R-19: tasks that die, flood or will not go away; drivers and zygotes that die."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from engine.errors import ExecutorError
from engine.executors import local
from engine.executors.base import ExitKind, JobEnded, JobOutput
from engine.executors.lines import LINE_MAX_BYTES
from engine.testing.executor_contract import watched
from tests.faults.jobs import ISOLATIONS, gone, is_alive, job
from tests.unit.executors.program import new_executor

# -- a task's process dies -------------------------------------------------------------------

DEATHS = {
    "os.kill(os.getpid(), signal.SIGKILL)": (ExitKind.SIGNAL, signal.SIGKILL),
    "import ctypes; ctypes.string_at(0)": (ExitKind.SIGNAL, signal.SIGSEGV),
    "os.abort()": (ExitKind.SIGNAL, signal.SIGABRT),
    "os._exit(3)": (ExitKind.CODE, 3),
    "os._exit(0)": (ExitKind.CODE, 0),
}


@ISOLATIONS
async def test_r03_a_death_is_told_with_its_cause_and_siblings_go_on(isolation: str) -> None:
    async with watched(new_executor(isolation)) as seen:
        jobs = [job(d, f"import os, signal\n{d}") for d in DEATHS]
        sibling = job("sibling", "import time; time.sleep(0.3); report(b'fine')")
        await seen.executor.submit([sibling, *jobs])
        ends = await seen.until_ended(*(j.name for j in jobs))
        (last,) = await seen.until_ended("sibling")
    for end in ends:
        assert (end.exit.kind, end.exit.code) == DEATHS[end.name]
        assert end.outcome is None
    assert last.outcome == b"fine"


async def test_r03_memory_that_ran_out_long_ago_is_not_blamed() -> None:
    async with watched(new_executor(oom_kills=lambda: 5)) as seen:
        await seen.executor.submit([job("quiet", "import os; os._exit(0)")])
        await seen.until_ended("quiet")
        await seen.executor.submit([job("a", "import os; os.kill(os.getpid(), 9)")])
        (end,) = await seen.until_ended("a")
    assert end.exit.detail.startswith("not by aflow")


async def test_r03_a_death_is_told_at_once() -> None:
    async with watched(new_executor()) as seen:
        await seen.executor.submit([job("a", "print('up'); import time; time.sleep(3600)")])
        await seen.until_printed("a", "up")
        pid = (await seen.until_started("a")).pid
        assert pid is not None
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        (end,) = await seen.until_ended("a")
        assert time.monotonic() - killed < 2  # 100 ms where the machine is not busy
    assert (end.exit.kind, end.exit.code) == (ExitKind.SIGNAL, signal.SIGKILL)
    assert "MiB at its peak" in end.exit.detail


async def test_r03_a_segfault_leaves_the_python_traceback_among_the_lines() -> None:
    async with watched(new_executor()) as seen:
        await seen.executor.submit([job("a", "import ctypes\nctypes.string_at(0)")])
        await seen.until_ended("a")
    assert "Segmentation fault" in seen.text("a", "stderr")
    assert 'File "<job>", line 2' in seen.text("a", "stderr")


async def test_r03_a_death_after_the_report_does_not_undo_it() -> None:
    async with watched(new_executor()) as seen:
        source = "import atexit, os; atexit.register(os.abort); report(b'done')"
        await seen.executor.submit([job("a", source)])
        (end,) = await seen.until_ended("a")
    assert (end.exit.kind, end.outcome) == (ExitKind.RETURNED, b"done")


async def test_r03_a_copy_of_the_task_cannot_report_in_its_name() -> None:
    source = """
        import os
        if os.fork() == 0:
            report(b"from the copy")
        os.wait()
        report(b"from the task")
    """
    async with watched(new_executor()) as seen:
        await seen.executor.submit([job("a", source)])
        (end,) = await seen.until_ended("a")
    assert end.outcome == b"from the task"


# -- floods ----------------------------------------------------------------------------------


async def test_r18_a_flood_waits_for_its_reader_and_nothing_is_lost() -> None:
    lines = 400_000
    source = (
        f"import sys; sys.stdout.writelines(f'line {{i}}\\n' for i in range({lines})); report(b'')"
    )
    executor = new_executor(backlog_bytes=1_000_000)
    async with watched(executor):
        await executor.submit([job("a", source)])
        held, count, last, ended = 0, 0, "", False
        async for batch in executor.updates():
            size = sum(len(t) + 100 for u in batch if isinstance(u, JobOutput) for _, t in u.lines)
            held = max(held, size)
            for update in batch:
                if isinstance(update, JobOutput):
                    assert update.lines[0][1] == f"line {count}"
                    count += len(update.lines)
                    last = update.lines[-1][1]
                ended = ended or isinstance(update, JobEnded)
            if ended:
                break
            await asyncio.sleep(0.002)  # a reader slower than the writer
    assert (count, last) == (lines, f"line {lines - 1}")
    assert held < 1_000_000 + 20 * local.wire.RECEIVE_BYTES


async def test_r18_one_line_of_100_mb_comes_in_pieces() -> None:
    size = 100_000_000
    source = f"""
        import os
        block = b"x" * 1_000_000
        for _ in range({size // 1_000_000}):
            os.write(1, block)
        report(b"")
    """
    executor = new_executor()
    async with watched(executor):
        await executor.submit([job("a", source)])
        total, longest = 0, 0
        async for batch in executor.updates():
            for update in batch:
                if isinstance(update, JobOutput):
                    total += sum(len(text) for _, text in update.lines)
                    longest = max(longest, *(len(text) for _, text in update.lines))
            if any(isinstance(update, JobEnded) for update in batch):
                break
    assert (total, longest) == (size, LINE_MAX_BYTES)


async def test_r18_odd_bytes_are_shown_and_kept() -> None:
    source = r"""
        import os
        os.write(1, b"caf\xc3\xa9 \xff \x00 \x1b[2J\r\nprogress 1\rprogress 2\rdone\nno newline")
        report(b"")
    """
    async with watched(new_executor()) as seen:
        await seen.executor.submit([job("a", source)])
        await seen.until_ended("a")
    assert seen.text("a").split("\n") == [
        "caf\xe9 \\xff \0 \x1b[2J",
        "progress 1",
        "progress 2",
        "done",
        "no newline",
    ]


# -- what will not go away -------------------------------------------------------------------

STUBBORN = """
    import os, signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(os.getpid(), flush=True)
    time.sleep(3600)
"""
DAEMON = """
    import os, signal, time
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("daemon", os.getpid(), flush=True)
            os.write(write_end, b"up")
            time.sleep(3600)
        os._exit(0)
    os.wait()
    os.read(read_end, 2)
    while True:
        time.sleep(0.01)
        if {done}:
            break
    report(b"done")
"""


def pid_in(text: str) -> int:
    return int(text.split()[-1])


@ISOLATIONS
async def test_r19_a_stubborn_task_is_killed_at_its_deadline(isolation: str) -> None:
    async with watched(new_executor(isolation, kill_grace_s=0.2)) as seen:
        await seen.executor.submit([job("a", STUBBORN, deadline_s=1.0)])
        (end,) = await seen.until_ended("a")
        assert not is_alive(pid_in(seen.text("a")))
    assert (end.exit.kind, end.exit.detail) == (ExitKind.TIMED_OUT, "1 s after its start")
    assert 1.0 <= (end.ended_us - end.started_us) / 1e6 < 3.0


async def test_r19_a_task_at_its_deadline_has_half_a_second_whatever_the_grace() -> None:
    async with watched(new_executor(kill_grace_s=30.0)) as seen:
        await seen.executor.submit([job("a", STUBBORN, deadline_s=0.3)])
        (end,) = await seen.until_ended("a")
    assert 0.8 <= (end.ended_us - end.started_us) / 1e6 < 5.0


@ISOLATIONS
async def test_r19_a_deadline_takes_along_daemons_that_ignore_signals_and_a_closed_output(
    isolation: str,
) -> None:
    source = f"""
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        {textwrap.indent(textwrap.dedent(DAEMON.format(done=False)), " " * 8).strip()}
    """.replace("while True:", "os.close(1); os.close(2)\n        while True:")
    async with watched(new_executor(isolation)) as seen:
        await seen.executor.submit([job("a", source, deadline_s=1.0)])
        (end,) = await seen.until_ended("a")
        daemon = pid_in(seen.text("a"))
        assert not is_alive(daemon)
    assert end.exit.kind is ExitKind.TIMED_OUT
    assert (end.ended_us - end.started_us) / 1e6 < 1.0 + 5.0


async def test_r19_a_task_may_clean_up_when_it_is_asked_to_end() -> None:
    source = """
        import os, signal, sys, time
        def clean(*_):
            os.write(1, b"cleaned\\n")  # print may be what the signal interrupted
            sys.exit(0)
        signal.signal(signal.SIGTERM, clean)
        print("up")
        time.sleep(3600)
    """
    async with watched(new_executor()) as seen:
        await seen.executor.submit([job("a", source)])
        await seen.until_printed("a", "up")
        await seen.executor.cancel(["a"], reason="enough")
        (end,) = await seen.until_ended("a")
    assert seen.text("a") == "up\ncleaned"
    assert end.exit.kind is ExitKind.CANCELLED


@ISOLATIONS
async def test_r19_a_daemon_that_a_task_leaves_is_gone_when_its_end_is_told(isolation: str) -> None:
    async with watched(new_executor(isolation)) as seen:
        await seen.executor.submit([job("a", DAEMON.format(done=True))])
        (end,) = await seen.until_ended("a")
        daemon = pid_in(seen.text("a"))
        assert not is_alive(daemon)
    assert end.outcome == b"done"


async def test_r19_a_daemon_lives_as_long_as_its_task_and_dies_with_it() -> None:
    async with watched(new_executor(kill_grace_s=0.2)) as seen:
        await seen.executor.submit([job("a", DAEMON.format(done=False))])
        await seen.until_printed("a", "daemon")
        daemon = pid_in(seen.text("a"))
        # Others that end meanwhile must not take it along.
        await seen.executor.submit([job(f"other-{i}", "report(b'')") for i in range(5)])
        await seen.until_ended(*(f"other-{i}" for i in range(5)))
        assert is_alive(daemon)
        await seen.executor.cancel(["a"], reason="enough")
        await seen.until_ended("a")
        assert not is_alive(daemon)


async def test_r19_tasks_that_leave_strays_do_not_hold_up_the_others() -> None:
    async with watched(new_executor()) as seen:
        leavers = [job(f"leaver-{i}", DAEMON.format(done=True)) for i in range(8)]
        others = [job(f"other-{i}", "report(b'')") for i in range(8)]
        await seen.executor.submit([j for pair in zip(leavers, others, strict=True) for j in pair])
        await seen.until_ended(*(j.name for j in (*leavers, *others)))
        assert not any(is_alive(pid_in(seen.text(j.name))) for j in leavers)


async def test_r19_a_task_that_closes_its_output_still_ends() -> None:
    source = "import os; os.close(1); os.close(2); report(b'quiet')"
    async with watched(new_executor()) as seen:
        await seen.executor.submit([job("a", source)])
        (end,) = await seen.until_ended("a")
    assert end.outcome == b"quiet"


async def test_r19_an_end_is_told_though_somebody_outside_holds_the_pipe() -> None:
    source = """
        import array, socket
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect({path!r})
            fds = array.array("i", [1])
            peer.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        print("handed over")
        report(b"done")
    """
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/s")
        server.listen()
        async with watched(new_executor()) as seen:
            await seen.executor.submit([job("a", source.format(path=f"{folder}/s"))])
            (end,) = await seen.until_ended("a")
        peer, _ = server.accept()
        _, fds, _, _ = socket.recv_fds(peer, 10, 1)
        peer.close()
        os.close(fds[0])
    assert (end.outcome, seen.text("a")) == (b"done", "handed over")


# -- the driver or the zygote dies -----------------------------------------------------------------

DRIVER = """
import asyncio, sys
sys.path.insert(0, {root!r})
from engine.executors.base import Job, JobOutput
from tests.unit.executors.program import new_executor
{fork}
async def main():
    executor = {executor}
    await executor.submit([Job("a", {source!r})])
    async for batch in executor.updates():
        for update in batch:
            if isinstance(update, JobOutput):
                print(update.lines[0][1], flush=True)
asyncio.run(main())
"""
FORKED = """
from engine.executors.zygote import fork_zygote
from tests.unit.executors.program import run_source
zygote = fork_zygote(lambda: run_source)
from engine.executors.local import LocalExecutor
"""


@pytest.mark.parametrize("way", ["forked", "spawned", "own interpreters"])
async def test_r01_nothing_outlives_a_killed_driver(way: str) -> None:
    executor = {
        "forked": "LocalExecutor(zygote)",
        "spawned": "new_executor()",
        "own interpreters": "new_executor('spawn')",
    }[way]
    source = textwrap.dedent(DAEMON.format(done=False)).encode()
    program = DRIVER.format(
        root=str(Path(__file__).parents[2]),
        fork=FORKED if way == "forked" else "",
        executor=executor,
        source=source,
    )
    driver = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE
    )
    assert driver.stdout is not None
    async with asyncio.timeout(20):
        daemon = pid_in((await driver.stdout.readline()).decode())
    processes = descendants(driver.pid)
    assert daemon in processes
    assert len(processes) >= 3  # the zygote, the task, its daemon
    driver.kill()
    await driver.wait()
    assert all([await gone(pid) for pid in processes])


async def test_a_dead_zygote_ends_the_updates_and_its_tasks() -> None:
    executor = new_executor()
    async with watched(executor) as seen:
        await executor.submit([job("a", STUBBORN)])
        await seen.until_printed("a", "")
        task = (await seen.until_started("a")).pid
        os.kill(executor._zygote.pid, signal.SIGKILL)
        with pytest.raises(ExecutorError, match="fork server died"):
            await seen.until_ended("a")
        assert task is not None
        assert await gone(task)
        with pytest.raises(ExecutorError):
            await anext(executor.updates())
        with pytest.raises(ExecutorError):
            await executor.submit([job("b", "")])


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    todo = [pid]
    while todo:
        for listing in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
            children = {int(p) for p in listing.read_text().split()}
            todo += children - found
            found |= children
    return found
