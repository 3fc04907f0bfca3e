"""Which tasks came before a task and which come after it, told from the graph and the ids. Pure.

A task's id is its index in each foreach around it. So a neighbour of the same depth has the same
id, one inside a foreach more has the id as the start of its own, and one outside has it shortened.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

from engine.flow.graph import FANS_OUT, Node

Nodes = Mapping[str, Node]


class Neighbours(Struct, frozen=True):
    """Tasks of `step`: the one of `task_id`, or all whose ids start with `prefix`."""

    step: str
    task_id: str | None = None
    prefix: str = ""

    def has(self, task_id: str) -> bool:
        return self.task_id == task_id if self.task_id else task_id.startswith(self.prefix)


Related = Callable[[Nodes, str, str], list[Neighbours]]


def parents(nodes: Nodes, step: str, task_id: str) -> list[Neighbours]:
    """The tasks that `step/task_id` read from."""
    before = [name for name, node in nodes.items() if step in node.next]
    return [_neighbours(nodes, step, name, task_id) for name in before]


def children(nodes: Nodes, step: str, task_id: str) -> list[Neighbours]:
    """The tasks that `step/task_id` led to."""
    return [_neighbours(nodes, step, name, task_id) for name in nodes[step].next if name in nodes]


def depth(nodes: Nodes, step: str) -> int:
    """How many foreach are open around a step."""
    return sum(
        split in nodes and nodes[split].kind in FANS_OUT for split in nodes[step].split_parents
    )


def _neighbours(nodes: Nodes, step: str, other: str, task_id: str) -> Neighbours:
    here, there = depth(nodes, step), depth(nodes, other)
    indices = task_id.split(".") if here else []
    if there <= here:
        return Neighbours(other, task_id=".".join(indices[:there]) or "0")
    return Neighbours(other, prefix="".join(f"{index}." for index in indices))
