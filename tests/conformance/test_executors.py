"""Every executor keeps the laws of its seam."""

from pathlib import Path

from engine.executors.base import Job
from engine.executors.local import LocalExecutor
from engine.testing.executor_contract import ExecutorContract
from tests.unit.executors.program import new_executor

RETURNS = b"import sys; print('out'); print('err', file=sys.stderr); report(b'done')"
EXITS = b"import os; os._exit(3)"
WAITS = b"import time; print('waiting'); time.sleep(3600)"


class _LocalExecutorContract(ExecutorContract):
    isolation: str

    async def make(self, tmp_path: Path) -> LocalExecutor:
        return new_executor(self.isolation)

    def returns(self, name: str) -> Job:
        return Job(name, RETURNS)

    def exits(self, name: str) -> Job:
        return Job(name, EXITS)

    def waits(self, name: str) -> Job:
        return Job(name, WAITS)


class TestLocalExecutorThatForks(_LocalExecutorContract):
    isolation = "fork"


class TestLocalExecutorThatSpawns(_LocalExecutorContract):
    isolation = "spawn"
