"""R-03 through a whole run: what is told of a task that died, and what is kept of the others."""

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable

import pytest

from engine import Engine, FlowSpec, step
from engine.errors import Failure
from engine.runtime import RunOptions
from engine.scheduler.progress import RunEvent, TaskAttemptFailed, TaskDone

WAYS = {
    "SIGKILL": "killed (out of memory?) by SIGKILL: not by aflow; the process held",
    "SIGSEGV": "segmentation fault by SIGSEGV",
    "SIGABRT": "aborted by SIGABRT",
    "os._exit": "the process exited with code 3 before it reported a result",
    "no memory left": "MemoryError",
    "no memory left, and nobody catches it": "by SIG",
    "no CPU time left": "by SIGXCPU",
}


class Dies(FlowSpec):
    """Each item dies in its own way, and one does not, after it has printed 30 lines."""

    @step
    def start(self) -> None:
        self.ways = ["fine", *WAYS]
        self.next(self.die, foreach="ways")

    @step
    def die(self) -> None:
        for number in range(30):
            sys.stdout.write(f"line {number}\n")
        time.sleep(0.3)  # so that all have begun before the first is dead
        die(self.input)
        self.next(self.join)

    @step
    def join(self, inputs: "list[Dies]") -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def die(way: str) -> None:
    match way:
        case "SIGKILL" | "SIGSEGV" | "SIGABRT":
            os.kill(os.getpid(), getattr(signal, way))
        case "os._exit":
            os._exit(3)
        case "no memory left":
            resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))
            bytearray(2**30)
        case "no memory left, and nobody catches it":
            resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))
            libc = ctypes.CDLL(None)
            libc.malloc.restype = ctypes.c_void_p
            ctypes.memset(libc.malloc(ctypes.c_size_t(2**30)), 1, 2**30)
        case "no CPU time left":
            resource.setrlimit(resource.RLIMIT_CPU, (1, 60))
            while True:
                pass


@pytest.mark.usefixtures("datastore")
async def test_r03_each_death_is_told_with_its_cause_and_the_last_20_lines_and_the_others_commit(
    record_property: Callable[[str, object], None],
) -> None:
    failures: dict[str, Failure] = {}
    done: list[str] = []

    def observe(event: RunEvent) -> None:
        if isinstance(event, TaskAttemptFailed):
            failures[event.task.task_id] = event.failure
        elif isinstance(event, TaskDone):
            done.append(str(event.task))

    async with Engine() as engine:
        run = await engine.execute(
            Dies, RunOptions(max_workers=len(WAYS) + 1), observers=(observe,)
        )
    assert run.status == "failed"
    assert sorted(done) == ["die/0", "start/0"]
    for number, (way, words) in enumerate(WAYS.items(), start=1):
        failure = failures[str(number)]
        assert words in failure.summary, way
        assert "line 29" in failure.log_tail, way
        assert len(failure.log_tail) == 20, way
    record_property("ways to die", len(WAYS))
