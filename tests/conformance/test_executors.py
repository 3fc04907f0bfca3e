"""Every executor keeps the laws of its seam."""

from pathlib import Path

from engine.executors.base import Job
from engine.executors.batch import BatchExecutor
from engine.executors.batch_submit import NEEDS
from engine.executors.hybrid import HybridExecutor
from engine.executors.local import LocalExecutor
from engine.testing.executor_contract import ExecutorContract
from tests.unit.executors.batch_world import BatchWorld
from tests.unit.executors.batch_world import job as batch_job
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


class _BatchExecutorContract(ExecutorContract):
    """Over Batch and a store in memory; tests/flows has the same over the emulator."""

    array_max: int

    async def make(self, tmp_path: Path) -> BatchExecutor:
        return BatchWorld().executor(array_max=self.array_max)

    def returns(self, name: str) -> Job:
        return batch_job(name, b"returns")

    def exits(self, name: str) -> Job:
        return batch_job(name, b"exits")

    def waits(self, name: str) -> Job:
        return batch_job(name, b"waits")


class TestBatchExecutorWithArrays(_BatchExecutorContract):
    array_max = 10_000


class TestBatchExecutorWithoutArrays(_BatchExecutorContract):
    array_max = 1


class TestHybridExecutor(_LocalExecutorContract):
    """Of a local part and one in Batch: jobs of both, in turn."""

    isolation = "fork"

    async def make(self, tmp_path: Path) -> HybridExecutor:  # type: ignore[override]  # not local
        parts = {"local": new_executor(self.isolation), NEEDS: BatchWorld().executor()}
        return HybridExecutor(parts, lambda job: NEEDS if NEEDS in job.resources else "local")

    def returns(self, name: str) -> Job:
        is_local = sum(name.encode()) % 2
        return super().returns(name) if is_local else batch_job(name, b"returns")
