"""R-04: a task sees nothing of another, and may do what any program may."""

import textwrap
from collections.abc import Callable

from engine.executors.base import ExitKind
from engine.testing.executor_contract import watched
from tests.faults.jobs import ISOLATIONS, job
from tests.unit.executors.program import new_executor

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
    "signal handlers": "[getattr(h, '__qualname__', h) for h in"
    " map(signal.getsignal, (15, 2, 10, 17, 1, 13))]",
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


async def test_r04_a_task_sees_nothing_that_another_changed(
    record_property: Callable[[str, object], None],
) -> None:
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
    record_property("probes that saw nothing", len(after))
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
