"""R-05: a run that is interrupted, terminated, hung up or hurried: what is left, said and returned.

Each run is a process that leads a group of its own, and signals go to that group, as a terminal
sends them. Its task has a child and a grandchild that left its group.
"""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec import Struct

from tests.faults.jobs import is_alive

FLOW = """
import os, signal, time
from engine import FlowSpec, step


class Waits(FlowSpec):
    @step
    def start(self):
        self.next(self.wait)

    @step
    def wait(self):
        if os.environ.get("STUBBORN"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
            os.fork()
            print("waits in", os.getpid(), flush=True)
            time.sleep(3600)
        print("waits in", os.getpid(), flush=True)
        while not os.path.exists("go on"):
            time.sleep(0.01)
        self.next(self.end)

    @step
    def end(self):
        print("ended")
"""
PROCESSES = 3
COMMAND = [sys.executable, "-P", "-c", "from engine.cli.main import main; main()"]


class Started(Struct):
    """A run whose task waits, and the processes of that task."""

    run: "subprocess.Popen[str]"
    pids: list[int]

    def end(self, *numbers: signal.Signals) -> tuple[str, float]:
        """Send signals to the group; return what stderr got then, and how long the end took."""
        began = time.monotonic()
        for number in numbers:
            os.killpg(self.run.pid, number)
            time.sleep(0.1)  # or two of a kind could become one
        _, err = self.run.communicate(timeout=20)
        return err, time.monotonic() - began

    def alive(self) -> list[int]:
        return [pid for pid in self.pids if is_alive(pid)]


@contextmanager
def started(
    folder: Path,
    *,
    flow: str = FLOW,
    prepare: Callable[[], object] | None = None,
    **env: str,
) -> Iterator[Started]:
    (folder / "waits.py").write_text(flow)
    run = subprocess.Popen(
        [*COMMAND, "run", "waits.py"],
        cwd=folder,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=prepare,
    )
    try:
        assert run.stdout is not None
        pids = [int(run.stdout.readline().split()[-1]) for _ in range(PROCESSES)]
        yield Started(run, pids)
    finally:
        run.kill()
        run.communicate()


def resumed(folder: Path, said: str) -> "subprocess.CompletedProcess[str]":
    """Do what the interrupted run said."""
    found = re.search(r"^resume with: aflow resume (\w+)$", said, re.MULTILINE)
    assert found is not None, said
    (folder / "go on").touch()
    return subprocess.run(
        [*COMMAND, "resume", found[1]], cwd=folder, capture_output=True, text=True, timeout=60
    )


pytestmark = pytest.mark.usefixtures("datastore")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_r05_one_signal_ends_the_tasks_and_the_run_goes_on_where_it_stopped(
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    record_property: Callable[[str, object], None],
) -> None:
    with started(tmp_path) as waiting:
        err, taken_s = waiting.end(number)
        assert waiting.run.returncode == code
        assert waiting.alive() == []
    assert taken_s < 2.0
    record_property("runs ended by one signal", 1)
    record_property("processes left", len(waiting.alive()))
    assert "interrupted: ending the tasks; once more to stop at once" in err
    assert f"interrupted: by {number.name}\n" in err
    assert "Traceback" not in err

    again = resumed(tmp_path, err)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == "[end/0] ended"
    assert "1 reused" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_r05_a_second_signal_waits_for_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path, STUBBORN="yes") as waiting:
        err, taken_s = waiting.end(number, number)
        assert waiting.run.returncode == 128 + number
        assert waiting.alive() == []
    assert taken_s < 1.0, "a stubborn task has a second to end after the first signal"
    assert "interrupted again: stopping at once" in err
    assert re.search(r"^resume with: aflow resume \w+$", err, re.MULTILINE)
    assert "Traceback" not in err


def test_r05_a_third_signal_changes_nothing(tmp_path: Path) -> None:
    with started(tmp_path, STUBBORN="yes") as waiting:
        err, taken_s = waiting.end(signal.SIGINT, signal.SIGINT, signal.SIGTERM)
        assert waiting.run.returncode == 130
        assert waiting.alive() == []
    assert taken_s < 2.0
    assert "Traceback" not in err


LATE = """
import os, signal


class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGTERM):
        kill(pid, number)


late = Late()  # goes when the interpreter does
"""


def test_r05_a_signal_while_the_interpreter_ends_changes_nothing(tmp_path: Path) -> None:
    with started(tmp_path, flow=FLOW + LATE) as waiting:
        err, _ = waiting.end(signal.SIGINT)
        assert waiting.run.returncode == 130
        assert "resume with:" in err


def test_r05_the_end_of_its_terminal_ends_a_run(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(FLOW)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv(COMMAND[0], [*COMMAND, "run", "waits.py"])
    shown = b""
    while shown.count(b"waits in") < PROCESSES:
        shown += os.read(terminal, 65536)
    os.close(terminal)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 143
    pids = [int(found) for found in re.findall(rb"waits in (\d+)", shown)]
    assert [pid for pid in pids if is_alive(pid)] == []


def test_r05_a_run_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with started(tmp_path, prepare=ignore) as waiting:
        os.killpg(waiting.run.pid, signal.SIGHUP)
        (tmp_path / "go on").touch()
        out, err = waiting.run.communicate(timeout=20)
    assert (waiting.run.returncode, out) == (0, "[end/0] ended\n"), err
