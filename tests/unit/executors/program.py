"""A zygote whose jobs are Python source: `exec` runs the spec, which finds `report` at hand.

python -m tests.unit.executors.program fork|spawn CONTROL REPORTS
python -m tests.unit.executors.program task SPEC REPORTS TOKEN
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

from engine.executors.child import end, install_streams
from engine.executors.forkserver import serve_spawned
from engine.executors.local import LocalExecutor, LocalExecutorConfig
from engine.executors.process import ReportChannel, Target, exec_target
from engine.executors.zygote import Zygote, spawn_zygote

_ROOT = str(Path(__file__).parents[3])
_START = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from {__name__} import main; main(sys.argv[1:])"
)


def run_source(spec: bytes, report: ReportChannel) -> int:
    exec(compile(spec, "<job>", "exec"), {"report": report})
    return 0


def argv(*words: str) -> list[str]:
    return [sys.executable, "-c", _START, *words]


def new_zygote(isolation: str = "fork") -> Zygote:
    return spawn_zygote(argv(isolation), b"")


def new_executor(isolation: str = "fork", **config: object) -> LocalExecutor:
    """An executor over a new zygote; `config` are fields of LocalExecutorConfig."""
    return LocalExecutor(new_zygote(isolation), LocalExecutorConfig(**config))  # type: ignore[arg-type]


def main(words: list[str]) -> NoReturn:
    if words[0] == "task":
        install_streams()
        with os.fdopen(int(words[1]), "rb") as file:
            spec = file.read()
        end(run_source(spec, ReportChannel.from_argv(words[2:])))
    server = serve_spawned(words[1:])
    server.await_boot()
    targets: dict[str, Target] = {"fork": run_source, "spawn": exec_target(argv("task"))}
    server.serve(targets[words[0]])
