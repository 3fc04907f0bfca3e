"""What becomes of a run's tasks when its driver goes and their jobs stay."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from engine.executors.base import Executor
from engine.executors.hybrid import Detached, HybridExecutor

_SHOWN = 5


class Leaving:
    """Lets the jobs of a run in AWS Batch go on, once it is cancelled."""

    def __init__(self, executor: HybridExecutor) -> None:
        self._executor = executor
        self._found: Detached | None = None

    def leave(self) -> None:
        """From now on, nothing that can go on by itself is ended."""
        self._found = self._found or self._executor.detach()

    def notes(self, run_id: str) -> Iterator[str]:
        """What to tell the user of it."""
        if self._found is None:
            return
        left, lost = self._found.left, self._found.lost
        if lost:
            tasks = [_task_of(name) for name in lost[:_SHOWN]]
            more = f" and {len(lost) - _SHOWN:,} more" if len(lost) > _SHOWN else ""
            yield f"cannot be left, so ended, to be run again: {', '.join(tasks)}{more}"
        if left:
            count = _tasks(len(left))
            yield f"{count} left running in AWS Batch; attach with: aflow attach {run_id}"
        else:
            yield f"no job is left running in AWS Batch; go on with: aflow attach {run_id}"


@contextmanager
def told_what_is_left(leaving: Leaving | None, run_id: str) -> Iterator[None]:
    """Note on a cancellation what becomes of the tasks; who reports it shows that."""
    try:
        yield
    except asyncio.CancelledError as cancelled:
        for note in leaving.notes(run_id) if leaving else ():
            cancelled.add_note(note)
        raise


def leaving_of(executor: Executor) -> Leaving | None:
    """None for a run that has nothing in Batch."""
    return Leaving(executor) if isinstance(executor, HybridExecutor) else None


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count:,} tasks"


def _task_of(name: str) -> str:
    """`step/task` of a job's name: run, step, task and attempt, none with a dash but tasks."""
    _, step, *task = name.split("-")
    return f"{step}/{'-'.join(task[:-1])}"
