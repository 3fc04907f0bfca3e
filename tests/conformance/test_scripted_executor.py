"""The executor of our tests keeps the laws that every executor keeps."""

import time
from pathlib import Path

from engine.executors.base import Exit, ExitKind, Job
from engine.testing.executor_contract import ExecutorContract
from engine.testing.fakes import Play, ScriptedExecutor

PLAYS = {
    b"returns": Play(0.0, b"done", stdout=("out",), stderr=("err",)),
    b"exits": Play(0.0, exit=Exit(ExitKind.CODE, 3)),
    b"waits": Play(3_600.0, b"done", stdout=("waiting",)),
}


class TestScriptedExecutor(ExecutorContract):
    async def make(self, tmp_path: Path) -> ScriptedExecutor:
        return ScriptedExecutor(lambda job: PLAYS[job.spec], clock=lambda: time.time_ns() // 1_000)

    def returns(self, name: str) -> Job:
        return Job(name, b"returns")

    def exits(self, name: str) -> Job:
        return Job(name, b"exits")

    def waits(self, name: str) -> Job:
        return Job(name, b"waits")
