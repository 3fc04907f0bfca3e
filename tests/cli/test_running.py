"""Runs through the command line, as processes of their own: what is printed, how they end."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.client.reader import Reader
from tests.cli.conftest import Call, variables
from tests.cli.flows import FAILS, HELLO, SLOW, write

RUN_ID = re.compile(r"run-id (\w{16})")


def plain(text: str) -> list[str]:
    """Lines without their times and run ids."""
    text = re.sub(r"(?m)^[-\d]{10} [:\d]{8}\.\d{3} ", "", text)
    text = re.sub(r"\b01[0-9A-Z]{14}\b", "RUN", text)
    return re.sub(r"\d+ ms|\d+\.\d s", "TIME", text).splitlines()


def test_a_run_prints_its_changes_and_its_tasks_lines(process: Call, tmp_path: Path) -> None:
    done = process("run", write(tmp_path, "hello.py", HELLO), "--max-workers", "1")

    assert done.code == 0
    assert done.lines == [
        "[work/0] hello a world",
        "[work/1] hello b world",
        "[work/2] hello c world",
        "[end/0] total aabbcc 0.5 None red",
    ]
    assert plain(done.err) == [
        "Workflow starting (run-id RUN):",
        "[start/0] Task is starting.",
        "[start/0] Foreach yields 3 child steps.",
        "[start/0] Task finished successfully.",
        "[work/0] Task is starting.",
        "[work/0] Task finished successfully.",
        "[work/1] Task is starting.",
        "[work/1] Task finished successfully.",
        "[work/2] Task is starting.",
        "[work/2] Task finished successfully.",
        "[gather/0] Task is starting.",
        "[gather/0] Task finished successfully.",
        "[end/0] Task is starting.",
        "[end/0] Task finished successfully.",
        "Done! HelloFlow/RUN: 6 tasks done in TIME",
        "  look:  aflow dump RUN   aflow logs RUN",
    ]


def test_parameters_come_from_options_and_variables(process: Call, tmp_path: Path) -> None:
    flow = write(tmp_path, "hello.py", HELLO)

    done = process(
        "run", flow, "--quiet", "--who-it-is", "$(x) y", "--limits", '{"a": 1}', "--color=blue",
        AFLOW_PARAMETER_ALPHA="2", AFLOW_PARAMETER_NAMES="p",
    )  # fmt: skip

    assert (done.code, done.err) == (0, "")
    assert done.lines == ["[work/0] hello p $(x) y", "[end/0] total pp 2.0 {'a': 1} blue"]


def test_a_run_can_be_read_by_every_verb(process: Call, tmp_path: Path) -> None:
    flow = write(tmp_path, "hello.py", HELLO)
    id_file = tmp_path / "id"

    run = process("run", flow, "--run-id-file", id_file, "--tag", "a", "--tag", "b")
    run_id = id_file.read_text()

    assert RUN_ID.search(run.err)[1] == run_id  # type: ignore[index]  # it is there, or it fails
    assert process("list", "HelloFlow").lines[1].startswith(f"HelloFlow/{run_id}  succeeded")
    assert process("tag", "list", run_id).lines == ["a", "b"]
    assert process("logs", run_id, "--step", "end").lines == ["[end/0] total aabbcc 0.5 None red"]
    assert process("dump", f"{run_id}/end/0/total").out == "aabbcc\n"
    assert process("status", "--json").out.count('"done": 3') == 1
    assert process("fsck").code == 0


def test_a_run_in_json_ends_with_its_result(process: Call, tmp_path: Path) -> None:
    done = process("run", write(tmp_path, "hello.py", HELLO), "--json")

    lines = [json.loads(line) for line in done.lines]
    assert (done.code, done.err) == (0, "")
    assert lines[0]["event"] == "run-began"
    assert lines[-1]["event"] == "result"
    assert lines[-1]["tasks"] == {"done": 6, "reused": 0, "failed": 0, "cancelled": 0}
    assert {line["schema"] for line in lines} == {"aflow/run/1"}


def test_a_failed_run_ends_with_its_error_and_resumes_where_it_stopped(
    process: Call, tmp_path: Path
) -> None:
    flow = write(tmp_path, "fails.py", FAILS)

    failed = process("run", flow, "--max-workers", "1", cwd=tmp_path)
    (tmp_path / "mended").touch()
    resumed = process("resume", "@latest-failed", cwd=tmp_path)

    assert failed.code == 1
    assert plain(failed.err)[-5:] == [
        "Workflow failed. FailsFlow/RUN: 2 tasks done, 1 failed in TIME",
        "error[task-failed]: work/1: ValueError: not yet",
        f'  {flow}:15  raise ValueError("not yet")',
        "  | working 1",
        "  run:  FailsFlow/RUN   resume: aflow resume RUN",
    ]
    assert resumed.code == 0
    assert resumed.lines == ["[work/1] working 1", "[end/0] ended"]
    assert "[work/0] Task reused." in plain(resumed.err)
    assert "3 tasks done, 2 reused" in resumed.err


def test_resume_from_a_step_runs_it_and_what_follows_again(process: Call, tmp_path: Path) -> None:
    flow = write(tmp_path, "hello.py", HELLO)
    process("run", flow)

    again = process("resume", flow, "@latest", "--step", "gather")
    other = process("resume", flow, "--origin-run-id", "-1", "--step", "nope")

    assert again.code == 0
    assert "2 tasks done, 4 reused" in again.err
    assert other.code == 2
    assert "no step 'nope'" in other.err


def test_a_run_of_another_flow_is_not_resumed(process: Call, tmp_path: Path) -> None:
    hello, fails = write(tmp_path, "hello.py", HELLO), write(tmp_path, "fails.py", FAILS)
    process("run", hello)

    done = process("resume", fails, "HelloFlow/@latest")

    assert done.code == 5
    assert "is of flow HelloFlow, not FailsFlow" in done.err


def test_a_flow_s_file_runs_resumes_and_reads_by_itself(datastore: Path, tmp_path: Path) -> None:
    flow = write(tmp_path, "fails.py", FAILS)

    def call(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(flow), *args],
            cwd=tmp_path,
            env=variables(datastore),
            capture_output=True,
            text=True,
            timeout=60,
        )

    failed = call("--no-pylint", "--with", "retry:times=1,minutes_between_retries=0", "run")
    (tmp_path / "mended").touch()
    resumed = call("resume")
    again = call("resume", "gather")
    logs = call("logs", "@latest/end")
    dump = call("dump", "@latest/work")

    assert failed.returncode == 1
    assert "Task is tried again in 0 s." in failed.stderr
    assert (resumed.returncode, again.returncode) == (0, 0)
    assert "2 tasks done, 3 reused" in again.stderr
    assert logs.stdout == "[end/0] ended\n"
    assert dump.returncode == 0


def test_spawned_tasks_do_the_same(process: Call, tmp_path: Path) -> None:
    done = process(
        "run", write(tmp_path, "hello.py", HELLO), "--isolation", "spawn", "--names", "a"
    )

    assert (done.code, done.lines) == (
        0,
        ["[work/0] hello a world", "[end/0] total aa 0.5 None red"],
    )


# -- signals --------------------------------------------------------------------------------------


def _wait_until_listed(datastore: Path) -> None:
    """What runs is listed a tenth of a second later, or more on a busy machine."""
    with Reader.at(str(datastore)) as reader:
        for _ in range(400):
            run = next(reader.runs(), None)
            if run and reader.task(run.flow, run.run_id, "nap", "0"):
                return
            threading.Event().wait(0.05)
    raise AssertionError("the run is not listed")


@contextmanager
def running(flow: Path, datastore: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A run whose nap has begun."""
    started = subprocess.Popen(
        [sys.executable, "-m", "engine.cli.main", "run", str(flow), *args],
        cwd=flow.parent,
        env=variables(datastore),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stdout is not None
        assert "asleep" in started.stdout.readline()
        _wait_until_listed(datastore)
        yield started
    finally:
        started.kill()
        started.communicate()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_a_signal_ends_the_run_and_says_how_to_resume_it(
    process: Call, datastore: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    flow = write(tmp_path, "slow.py", SLOW)

    with running(flow, datastore) as started:
        began = time.monotonic()
        started.send_signal(number)
        _, err = started.communicate(timeout=20)
        taken = time.monotonic() - began

    assert started.returncode == code
    assert taken < 5
    assert plain(err)[-1] == "resume with: aflow resume RUN"
    assert "interrupted: ending the tasks; once more to stop at once" in err
    assert "Task was ended" in err
    assert process("list").lines[1].split()[1] == "interrupted"
    assert process("status", "--exit-code").code == code
    assert f"by {number.name}" in process("status", "--json").out


def test_following_a_run_that_is_interrupted_ends_with_its_code(
    datastore: Path, tmp_path: Path
) -> None:
    flow = write(tmp_path, "slow.py", SLOW)

    with running(flow, datastore) as started:
        follower = subprocess.Popen(
            [sys.executable, "-m", "engine.cli.main", "logs", "-f", "@latest"],
            env=variables(datastore),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert follower.stdout is not None
        assert follower.stdout.readline() == "[nap/0] asleep\n"
        started.send_signal(signal.SIGINT)
        started.communicate(timeout=20)
        follower.communicate(timeout=20)

    assert follower.returncode == 130


def test_stopping_a_follower_does_not_stop_the_run(datastore: Path, tmp_path: Path) -> None:
    flow = write(tmp_path, "slow.py", SLOW)

    with running(flow, datastore) as started:
        follower = subprocess.Popen(
            [sys.executable, "-m", "engine.cli.main", "logs", "-f", "@latest"],
            env=variables(datastore),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert follower.stdout is not None
        assert follower.stdout.readline() == "[nap/0] asleep\n"
        follower.send_signal(signal.SIGINT)
        _, err = follower.communicate(timeout=20)
        alive = started.poll() is None
        started.send_signal(signal.SIGINT)
        started.communicate(timeout=20)

    assert (follower.returncode, err) == (130, "interrupted\n")
    assert alive


def test_a_run_that_is_driven_is_not_resumed(
    process: Call, datastore: Path, tmp_path: Path
) -> None:
    with running(write(tmp_path, "slow.py", SLOW), datastore) as started:
        refused = process("resume")
        plan = process("resume", "--dry-run")

        assert refused.code == 6
        assert refused.err.startswith("error[run-held]: run SlowFlow/")
        assert f"/{started.pid} since " in refused.err
        assert f"kill -INT {started.pid}" in refused.err
        assert (plan.code, plan.err) == (0, "")
    assert len(process("list").lines) == 2


def test_a_killed_driver_leaves_an_interrupted_run(
    process: Call, datastore: Path, tmp_path: Path
) -> None:
    flow = write(tmp_path, "slow.py", SLOW)

    with running(flow, datastore) as started:
        started.kill()
        started.communicate()

    assert process("list").lines[1].split()[1] == "interrupted"
    assert "resume with: aflow resume" in process("status").out


# -- streams --------------------------------------------------------------------------------------


def test_a_reader_that_stops_reading_is_no_error(
    process: Call, datastore: Path, tmp_path: Path
) -> None:
    process("run", write(tmp_path, "hello.py", HELLO))
    shell = (
        f"{sys.executable} -m engine.cli.main logs @latest | head -1; echo ${{PIPESTATUS[0]}};"
        f"{sys.executable} -m engine.cli.main help | head -0; echo ${{PIPESTATUS[0]}}"
    )

    done = subprocess.run(
        ["bash", "-c", shell], env=variables(datastore), capture_output=True, text=True
    )

    assert done.stderr == ""
    assert done.stdout.splitlines()[1] in ("0", "141")  # all may be written before head is gone


def on_terminal(args: list[str], env: dict[str, str], cwd: Path) -> tuple[int, str]:
    """Run a command with a terminal as its streams; return its code and what the terminal got."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.execve(sys.executable, [sys.executable, *args], env)
    shown = b""
    try:
        while piece := os.read(terminal, 65536):
            shown += piece
    except OSError:  # the terminal has no writer left
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


NAPS = """
import time
from engine import FlowSpec, step


class NapsFlow(FlowSpec):
    @step
    def start(self):
        self.items = list(range(8))
        self.next(self.nap, foreach="items")

    @step
    def nap(self):
        time.sleep(0.2)
        print("\\x1b[31mred\\x1b[0m\\x1b[2Jand safe", self.index)
        self.next(self.gather)

    @step
    def gather(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
"""


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_on_a_terminal_a_table_is_drawn_over_and_a_dumb_one_gets_lines(
    datastore: Path, tmp_path: Path, term: str
) -> None:
    flow = write(tmp_path, "naps.py", NAPS)
    env = {**variables(datastore), "TERM": term, "COLUMNS": "100", "LINES": "30"}

    code, shown = on_terminal(
        ["-m", "engine.cli.main", "run", str(flow), "--max-workers", "2"], env, tmp_path
    )

    assert code == 0
    assert "Done! NapsFlow/" in shown
    assert "\x1b[2J" not in shown
    if term == "xterm":
        assert "\x1b[31mred\x1b[0m" in shown
        assert "Task is starting." not in shown
        assert re.search(r"nap .*━.* \d/8 ", shown)
    else:
        assert "\x1b[" not in shown
        assert shown.count("[nap/7] Task is starting.") == 1
