"""R-03, R-04, R-18, R-19 and S-05: tasks that die, misbehave, flood or will not go away."""

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
from engine.executors.base import ExitKind, Job, JobEnded, JobOutput
from engine.executors.lines import LINE_MAX_BYTES
from engine.testing.executor_contract import watched
from tests.unit.executors.program import new_executor

ISOLATIONS = pytest.mark.parametrize("isolation", ["fork", "spawn"])


def job(name: str, source: str, deadline_s: float | None = None) -> Job:
    return Job(name, textwrap.dedent(source).encode(), deadline_s)


def is_alive(pid: int) -> bool:
    """Whether the process runs: what waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


async def gone(pid: int, *, within_s: float = 2.0) -> bool:
    deadline = time.monotonic() + within_s
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.005)
    return True


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


async def test_r03_a_death_is_told_within_100_ms() -> None:
    async with watched(new_executor()) as seen:
        await seen.executor.submit([job("a", "print('up'); import time; time.sleep(3600)")])
        await seen.until_printed("a", "up")
        pid = (await seen.until_started("a")).pid
        assert pid is not None
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        (end,) = await seen.until_ended("a")
        assert time.monotonic() - killed < 0.1
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


# -- a task sees nothing of another ----------------------------------------------------------

SPOIL = """
    import atexit, builtins, logging, os, random, signal, sys, threading, time
    os.environ["SPOILED"] = "1"
    os.chdir("/")
    os.umask(0)
    sys.modules["json"] = None
    builtins.spoiled = True
    random.seed(1)
    kept = os.open("/dev/null", os.O_RDONLY)
    threading.Thread(target=time.sleep, args=(0.1,)).start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    atexit.register(print, "SPOILED AT EXIT")
    logging.basicConfig(level="DEBUG")
    sys.path.append("/spoiled")
    sys.setrecursionlimit(5000)
    report(b"")
"""

PROBES = {
    "environment": "'SPOILED' in os.environ",
    "working directory": "os.getcwd() == '/'",
    "umask": "os.umask(0o077) == 0",
    "modules": "sys.modules.get('json', 1) is None",
    "builtins": "hasattr(builtins, 'spoiled')",
    "descriptors": "len(os.listdir('/proc/self/fd'))",
    "sockets": "sum(stat.S_ISSOCK(os.stat(f'/proc/self/fd/{n}').st_mode) for n in range(3, 99)"
    " if os.path.exists(f'/proc/self/fd/{n}'))",
    "pipes": "sum(stat.S_ISFIFO(os.stat(f'/proc/self/fd/{n}').st_mode) for n in range(3, 99)"
    " if os.path.exists(f'/proc/self/fd/{n}'))",
    "threads": "threading.active_count()",
    "signal handlers": "[str(signal.getsignal(n)) for n in (15, 2, 10, 17, 1, 13)]",
    "signal mask": "list(signal.pthread_sigmask(signal.SIG_BLOCK, []))",
    "logging": "logging.getLogger().level",
    "path": "'/spoiled' in sys.path",
    "recursion limit": "sys.getrecursionlimit()",
    "children": "multiprocessing.active_children()",
    "standard input": "os.readlink('/proc/self/fd/0')",
    "daemonic": "multiprocessing.current_process().daemon",
    "exit functions": "atexit._ncallbacks()",
}
PROBE = f"""
    import atexit, builtins, logging, multiprocessing, os, signal, stat, sys, threading
    for name, probe in {PROBES!r}.items():
        print(name, '=', eval(probe))
    report(b"")
"""


async def test_r04_a_task_sees_nothing_that_another_changed() -> None:
    async with watched(new_executor()) as seen:
        await seen.executor.submit([job("before", PROBE)])
        await seen.until_ended("before")
        await seen.executor.submit([job(f"spoiler-{i}", SPOIL) for i in range(3)])
        await seen.until_ended("spoiler-0", "spoiler-1", "spoiler-2")
        await seen.executor.submit([job("after", PROBE)])
        await seen.until_ended("after")
    before, after = seen.text("before").splitlines(), seen.text("after").splitlines()
    assert len(before) == len(PROBES)
    assert after == before
    assert "threads = 1" in after
    assert "signal mask = []" in after
    assert "standard input = /dev/null" in after
    assert "sockets = 1" in after  # the channel on which it reports
    assert "pipes = 0" in after
    assert "SPOILED AT EXIT" not in seen.text("after")
    assert "SPOILED AT EXIT" in seen.text("spoiler-0")


async def test_r04_tasks_draw_different_random_numbers() -> None:
    source = """
        import random
        import numpy
        print(random.random(), numpy.random.random())
        report(b"")
    """
    names = [f"job-{i}" for i in range(4)]
    async with watched(new_executor()) as seen:
        await seen.executor.submit([job(name, source) for name in names])
        await seen.until_ended(*names)
    python, numpy = zip(*(seen.text(name).split() for name in names), strict=True)
    assert len(set(python)) == len(set(numpy)) == 4


# -- what a task may do ----------------------------------------------------------------------------

WAYS_TO_WORK = {
    "subprocess": """
        import subprocess
        assert subprocess.run(["echo", "x"], capture_output=True).stdout == b"x\\n"
    """,
    "multiprocessing fork": """
        import multiprocessing
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(abs, [-1, -2]) == [1, 2]
    """,
    "multiprocessing spawn": """
        import multiprocessing
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            assert pool.map(abs, [-1, -2]) == [1, 2]
    """,
    "process pool executor": """
        from concurrent.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(2) as pool:
            assert list(pool.map(abs, [-1, -2])) == [1, 2]
    """,
    "threads": """
        import threading
        thread = threading.Thread(target=print, args=("from a thread",))
        thread.start(); thread.join()
    """,
    "asyncio": """
        import asyncio
        async def main():
            process = await asyncio.create_subprocess_exec("true")
            return await process.wait()
        assert asyncio.run(main()) == 0
    """,
    "alarm": """
        import signal, time
        def late(*_): raise TimeoutError
        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try: time.sleep(5)
        except TimeoutError: pass
        else: raise AssertionError
    """,
}


@ISOLATIONS
async def test_a_task_may_use_processes_threads_loops_and_signals(isolation: str) -> None:
    async with watched(new_executor(isolation)) as seen:
        await seen.executor.submit(
            [job(n, textwrap.dedent(s) + "\nreport(b'ok')") for n, s in WAYS_TO_WORK.items()]
        )
        ends = await seen.until_ended(*WAYS_TO_WORK)
    assert {e.name: e.outcome for e in ends} == dict.fromkeys(WAYS_TO_WORK, b"ok"), [
        seen.text(e.name, "stderr") for e in ends if e.outcome is None
    ]


async def test_a_task_ends_as_a_program_does() -> None:
    source = """
        import atexit, sys, threading, time
        atexit.register(print, "exit function")
        threading.Thread(target=lambda: (time.sleep(0.05), print("thread"))).start()
        sys.stdout.write("no newline")
        report(b"")
    """
    async with watched(new_executor()) as seen:
        await seen.executor.submit([job("a", source)])
        (end,) = await seen.until_ended("a")
    assert seen.text("a") == "no newlinethread\nexit function"
    assert (end.exit.kind, end.exit.code) == (ExitKind.RETURNED, 0)


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
zygote = fork_zygote(run_source)
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
