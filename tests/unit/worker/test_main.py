import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest

from engine.errors import ExecutorError, UsageError
from engine.executors.base import ExitKind, Job
from engine.executors.local import LocalExecutor
from engine.executors.zygote import Zygote, spawn_zygote
from engine.flow.current import current
from engine.flow.graph import Transition
from engine.flow.spec import FlowSpec, step
from engine.stores.layout import create_layout
from engine.stores.manifest import Manifest
from engine.stores.taskspec import Report, TaskSpec
from engine.testing.executor_contract import watched
from engine.worker import warmup
from engine.worker.main import Boot, main, program_of, task_target, zygote_argv

FLOW = """
import os
import beside
from engine import FlowSpec, step

class Small(FlowSpec):
    @step
    def start(self):
        self.seen = (beside.VALUE, os.getcwd(), os.getpid())
        print("in start")
        self.next(self.end)

    @step
    def end(self):
        raise ValueError("at the end")
"""

HELPED = """
import pathlib, subprocess
from engine import FlowSpec, step

HELPER = subprocess.Popen(["sleep", "60"])

class Helped(FlowSpec):
    @step
    def start(self):
        state = pathlib.Path(f"/proc/{HELPER.pid}/stat").read_text().rpartition(")")[2].split()[0]
        self.alive = state == "S"
        HELPER.returncode = 0  # it is not this process's to wait for
        self.next(self.end)

    @step
    def end(self):
        pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.py").write_text(FLOW)
    (tmp_path / "beside.py").write_text("VALUE = 'imported'\n")
    (tmp_path / "types.py").write_text("raise ImportError('must not be imported')\n")
    create_layout(tmp_path / "store")
    return tmp_path


def spec(folder: Path, flow: str, step: str) -> bytes:
    parameters = Manifest(flow, "run", "_parameters", "0", 0).pack()
    store = str(folder / "store")
    return TaskSpec(flow, "run", step, "0", 0, store, parameters=parameters).pack()


async def reports(zygote: Zygote, *jobs: Job) -> list[Report]:
    async with watched(LocalExecutor(zygote)) as seen:
        await seen.executor.submit(jobs)
        ends = await seen.until_ended(*(job.name for job in jobs))
        assert {end.exit.kind for end in ends} == {ExitKind.RETURNED}
        return [Report.unpack(end.outcome or b"") for end in ends]


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
async def test_a_flow_of_a_file_runs_in_an_interpreter_that_loads_it_itself(
    folder: Path, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    boot = Boot.here(f"{folder}/small.py:Small", isolation=isolation)
    zygote = spawn_zygote(zygote_argv(), boot.pack())
    jobs = [Job(name, spec(folder, "Small", name)) for name in ("start", "end")]
    start, end = await reports(zygote, *jobs)
    assert start.manifest is not None
    seen = Manifest.unpack(start.manifest).artifacts["seen"].preview
    assert "imported" in seen
    assert end.failure is not None
    assert end.failure.where == f'{folder}/small.py:15  raise ValueError("at the end")'
    assert "engine" not in end.failure.traceback


async def test_a_flow_of_a_function_is_sent_by_value(folder: Path) -> None:
    class Local(FlowSpec):
        @step
        def start(self):
            self.x = folder.name
            self.next(self.end)

        @step
        def end(self):
            pass

    boot = Boot.here(cloudpickle.dumps(program_of(Local)))
    zygote = spawn_zygote(zygote_argv(), boot.pack())
    (report,) = await reports(zygote, Job("a", spec(folder, "Local", "start")))
    assert report.manifest is not None
    manifest = Manifest.unpack(report.manifest)
    assert manifest.transition == Transition(("end",))
    assert manifest.artifacts["x"].preview == repr(folder.name)


async def test_a_flow_that_cannot_be_loaded_ends_the_updates_with_the_reason(folder: Path) -> None:
    (folder / "broken.py").write_text("import nothing_of_that_name\n")
    zygote = spawn_zygote(zygote_argv(), Boot.here(f"{folder}/broken.py").pack())
    async with watched(LocalExecutor(zygote)) as seen:
        await seen.executor.submit([Job("a", b"")])
        with pytest.raises(ExecutorError, match="No module named 'nothing_of_that_name'"):
            await seen.until_ended("a")


async def test_what_a_module_starts_while_it_is_imported_lives_as_long_as_the_zygote(
    folder: Path,
) -> None:
    (folder / "helped.py").write_text(HELPED)
    zygote = spawn_zygote(zygote_argv(), Boot.here(f"{folder}/helped.py").pack())
    async with watched(LocalExecutor(zygote)) as seen:
        previews = []
        for name in ("first", "second"):
            await seen.executor.submit([Job(name, spec(folder, "Helped", "start"))])
            (end,) = await seen.until_ended(name)
            report = Report.unpack(end.outcome or b"")
            assert report.manifest is not None
            previews.append(Manifest.unpack(report.manifest).artifacts["alive"].preview)
    assert previews == ["True", "True"]


def test_a_boot_survives_packing() -> None:
    boot = Boot.here("flow.py:F", ["retry:times=3"], isolation="spawn")
    assert Boot.unpack(boot.pack()) == boot


def test_a_zygote_whose_driver_is_gone_before_the_boot_just_ends() -> None:
    zygote = spawn_zygote(zygote_argv(), b"")
    zygote.kill()
    assert zygote.is_gone()


@pytest.mark.parametrize("words", [[], ["serve"], ["task", "1"], ["dance", "1", "2"]])
def test_other_words_are_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match="the worker was started with"):
        main(words)


def test_decorators_of_the_command_line_reach_the_program() -> None:
    class Local(FlowSpec):
        @step
        def start(self):
            self.next(self.end)

        @step
        def end(self):
            pass

    program = program_of(Local, ["retry:times=3", "timeout:seconds=5"])
    assert program.graph["start"].retry.times == 3
    assert program.graph["end"].timeout_s == 5
    assert [d.name for d in program.decorators["start"]] == ["retry", "timeout"]


def test_a_task_reports_and_exits_with_its_outcome(folder: Path) -> None:
    class Local(FlowSpec):
        @step
        def start(self):
            self.next(self.end)

        @step
        def end(self):
            raise ValueError

    outcomes: list[bytes] = []
    target = task_target(program_of(Local))
    codes = [target(spec(folder, "Local", s), outcomes.append) for s in ("start", "end")]  # type: ignore[arg-type]
    current._bind()
    assert codes == [0, 1]
    first, second = map(Report.unpack, outcomes)
    assert first.manifest
    assert second.failure
    assert second.failure.message == "ValueError"


def test_warming_up_leaves_nothing_but_copies_of_the_code_it_ran(tmp_path: Path) -> None:
    before = warmup.run_attempt.__code__
    warmup.warm_up()
    assert warmup.run_attempt.__code__ == before
    assert warmup.run_attempt.__code__ is not before
    assert not current.is_running_flow


def test_the_worker_needs_no_asyncio_no_click_and_no_logging() -> None:
    program = (
        "import sys, engine.worker.main; "
        "print(sorted({'asyncio', 'click', 'logging', 'numpy', 'rich', 'cloudpickle'} & "
        "sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
