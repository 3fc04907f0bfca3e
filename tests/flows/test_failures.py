"""How runs fail, stop and go on: exit codes, what siblings do, what is reused."""

import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest

from tests.flows.harness import Bench, tasks, values

pytestmark = pytest.mark.usefixtures("datastore")

HEAD = """
import os, signal, sys, time
from pathlib import Path
from engine import FlowSpec, Parameter, catch, current, retry, step, timeout
STARTED = Path("started")
"""
FOOT = """
if __name__ == "__main__":
    Shaped()
"""


def bench(folder: Path, body: str) -> Bench:
    return Bench.holding(HEAD + body + FOOT, folder)


TWO_STEPS = """
class Shaped(FlowSpec):
{decorators}
    @step
    def start(self):
        {code}
        self.next(self.end)
    @step
    def end(self):
        pass
"""


def two_steps(folder: Path, code: str, decorators: str = "") -> Bench:
    return bench(folder, TWO_STEPS.format(code=code, decorators=decorators))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise ValueError('no such luck')", "ValueError: no such luck"),
        ("sys.exit(3)", "exit"),
        ("os._exit(3)", "exited with code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("self.bad = (i for i in [])", "bad"),
    ],
)
def test_a_failed_step_ends_the_run_with_1_and_says_why(
    tmp_path: Path, code: str, told: str
) -> None:
    said = two_steps(tmp_path, f"print('the last line'); {code}").aflow("run", "shaped.py")
    assert said.code == 1, said
    assert told in said.err
    assert "start/0" in said.err
    assert "resume" in said.err


def test_the_error_names_file_line_and_source_of_the_users_code(tmp_path: Path) -> None:
    said = two_steps(tmp_path, "self.x = [1][2]").aflow("run", "shaped.py")
    line = next(
        number
        for number, text in enumerate((tmp_path / "shaped.py").read_text().splitlines(), start=1)
        if "[1][2]" in text
    )
    assert f"shaped.py:{line}" in said.err
    assert "self.x = [1][2]" in said.err


def test_a_task_over_its_time_is_ended_with_all_its_processes(tmp_path: Path) -> None:
    code = "os.system('sleep 300 & sleep 300')"
    flow = two_steps(tmp_path, code, "    @timeout(seconds=1)")
    began = monotonic()
    said = flow.aflow("run", "shaped.py")
    assert said.code == 1, said
    assert "ran longer than its @timeout" in said.err
    assert monotonic() - began < 15  # the fixtures check that no `sleep` is left


def test_a_time_out_is_retried_and_then_caught(tmp_path: Path) -> None:
    decorators = (
        "    @catch(var='failure', print_exception=False)\n"
        "    @retry(times=1, minutes_between_retries=0)\n"
        "    @timeout(seconds=1)"
    )
    flow = two_steps(tmp_path, "self.attempt = current.retry_count; time.sleep(300)", decorators)
    run = flow.run()
    assert run.successful
    assert "failure" in run["start"].task.data
    assert run["start"].task.current_attempt >= 1


def test_a_step_that_fails_once_is_saved_by_retries_given_from_outside(tmp_path: Path) -> None:
    flow = two_steps(tmp_path, "self.n = 1 // current.retry_count")
    assert flow.aflow("run", "shaped.py").code == 1
    spec = "retry:times=1,minutes_between_retries=0"
    assert flow.run("--with", spec).successful


FAN = """
class Shaped(FlowSpec):
    @step
    def start(self):
        self.numbers = list(range(6))
        self.next(self.work, foreach="numbers")
    @step
    def work(self):
        with STARTED.open("a") as file:
            file.write(f"work/{self.input}\\n")
        if self.input == 1 and os.environ.get("BROKEN"):
            raise RuntimeError("broken on purpose")
        time.sleep(float(os.environ.get("NAP", "0")) if self.input == 0 else 0)
        self.square = self.input ** 2
        self.next(self.gather)
    @step
    def gather(self, inputs):
        with STARTED.open("a") as file:
            file.write("gather\\n")
        self.squares = [task.square for task in inputs]
        self.next(self.end)
    @step
    def end(self):
        pass
"""


def test_running_siblings_finish_when_one_failed_and_are_reused(tmp_path: Path) -> None:
    flow = bench(tmp_path, FAN)
    failed = flow.run("--max-workers", "2", expected=1, BROKEN="1", NAP="0.3")
    assert not failed.successful
    assert [task.successful for task in tasks(failed, "work")][:2] == [True, False]
    before = (tmp_path / "started").read_text().split()

    run = flow.resume()
    assert run.data.squares == [0, 1, 4, 9, 16, 25]
    again = (tmp_path / "started").read_text().split()[len(before) :]
    done_before = {f"work/{t.id}" for t in tasks(failed, "work") if t.successful}
    assert set(again) == {f"work/{i}" for i in range(6)} - done_before | {"gather"}
    assert run.origin_pathspec is None or failed.id in run.origin_pathspec


def test_running_siblings_are_stopped_when_told_so(tmp_path: Path) -> None:
    flow = bench(tmp_path, FAN)
    began = monotonic()
    failed = flow.run(
        *("--on-failure", "cancel", "--max-workers", "2"), expected=1, BROKEN="1", NAP="60"
    )
    assert monotonic() - began < 20
    assert not any(task.successful for task in tasks(failed, "work") if task.id == "0")


def test_resume_from_a_step_runs_it_and_what_follows_again(tmp_path: Path) -> None:
    flow = bench(tmp_path, FAN)
    flow.run()
    (tmp_path / "started").unlink()
    run = flow.resume("--step", "gather")
    assert (tmp_path / "started").read_text().split() == ["gather"]
    assert run.data.squares == [0, 1, 4, 9, 16, 25]


def test_a_resumed_run_can_be_resumed(tmp_path: Path) -> None:
    flow = bench(tmp_path, FAN)
    flow.run(expected=1, BROKEN="1")
    flow.resume(expected=1, BROKEN="1")
    run = flow.resume()
    assert run.data.squares == [0, 1, 4, 9, 16, 25]
    assert sorted(values(run, "work", "square")) == [0, 1, 4, 9, 16, 25]


def test_the_file_is_a_command_too(tmp_path: Path) -> None:
    flow = bench(tmp_path, FAN)
    for words in (["check"], ["run", "--max-workers", "2"], ["show"], ["logs"], ["resume"]):
        done = subprocess.run(
            [sys.executable, flow.flow, *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    assert flow.latest().data.squares == [0, 1, 4, 9, 16, 25]


def test_a_foreach_over_nothing_fails_the_step_that_opens_it(tmp_path: Path) -> None:
    flow = bench(tmp_path, FAN.replace("range(6)", "range(0)"))
    said = flow.aflow("run", "shaped.py")
    assert said.code == 1, said
    assert "numbers" in said.err
    assert "start" in said.err


def test_a_conflict_in_merge_artifacts_names_the_artifact(tmp_path: Path) -> None:
    body = FAN.replace("self.squares = [", "self.merge_artifacts(inputs); self.squares = [")
    said = bench(tmp_path, body).aflow("run", "shaped.py")
    assert said.code == 1, said
    assert "square" in said.err
    assert "gather/0" in said.err
