"""Gangs: tasks that start together, and commit together or not at all. Pure.

A gang is one task to the machine, named by its first member: it has one state, one attempt and one
budget of retries, and takes as many slots as it has members. Here is who its members are, and which
of them have ended.
"""

from array import array
from collections.abc import Sequence
from typing import cast

from msgspec import Struct
from msgspec.structs import replace

from engine.flow.graph import Graph
from engine.ids import TaskKey
from engine.scheduler.commands import Launch
from engine.scheduler.events import ResultRef

_MISSING = -1  # no frame of a journal lies at a negative offset


def member(task: TaskKey, index: int) -> TaskKey:
    """The member of `task`'s gang that has this index."""
    *outer, last = task.frames
    return replace(task, frames=(*outer, replace(last, index=index)))


def leader(graph: Graph, task: TaskKey) -> TaskKey:
    """The first of the task's gang; the task itself if it is in none."""
    node = graph.nodes.get(task.step)
    in_gang = node is not None and node.is_parallel and task.frames
    return member(task, 0) if in_gang and task.frames[-1].index else task


def tasks_of(launch: Launch) -> list[TaskKey]:
    """What a launch starts: its task, or all members of its gang, in order of their indices."""
    return [member(launch.task, i) for i in range(launch.gang)] or [launch.task]


class Roll(Struct, eq=False):
    """Which members of an attempt have ended. Results count when none is missing, and none failed.

    `is_broken` tells that one has failed.
    """

    results: "array[int]"
    missing: set[int]
    is_broken: bool = False

    @classmethod
    def of(cls, size: int) -> "Roll":
        return cls(array("q", (_MISSING,)) * size, set(range(size)))

    def end(self, index: int, result: ResultRef | None) -> bool:
        """Note a member's end, with a result or failed; tell whether it was the last."""
        self.missing.discard(index)
        if result is None:
            self.is_broken = True
        else:
            self.results[index] = result
        return not self.missing

    def refs(self) -> Sequence[ResultRef]:
        """The members' results, in order of their indices; once all have one."""
        return cast(Sequence[ResultRef], self.results)
