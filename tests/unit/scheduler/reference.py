"""What a flow comes to, computed in the plainest way there is: one task after another, recursively.

Knows no slots, no events and no order of arrival. The machine must come to the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.flow.graph import FANS_OUT, Graph, Kind, Node
from engine.ids import Frame, TaskKey

Fate = tuple[Sequence[str], Sequence[str]]
"""How user attempts, then fallbacks end: "ok", "failed" or "fatal"; after the last, "ok".

A gang's members have the fate of their gang: all commit, or none."""


@dataclass
class Reference:
    graph: Graph
    fate: Callable[[TaskKey], Fate]
    width: Callable[[TaskKey], int]
    inputs: dict[TaskKey, tuple[TaskKey, ...]] = field(default_factory=dict)  # of what commits
    failed: set[TaskKey] = field(default_factory=set)

    def walk(self, key: TaskKey, inputs: tuple[TaskKey, ...]) -> TaskKey | None:
        """Do a task and all that follows in its frames; return what arrives at the join around."""
        node = self.graph[key.step]
        if not succeeds(node, *self.fate(key)):
            self.failed.add(key)
            return None
        self.inputs[key] = inputs
        if node.kind is Kind.END:
            return None
        if node.kind is Kind.LINEAR:
            (following,) = node.next
            if self.graph[following].is_join:
                return key
            return self.walk(TaskKey(following, key.frames), (key,))
        is_foreach = node.kind in FANS_OUT
        targets = node.next * self.width(key) if is_foreach else node.next
        arrived = []
        for index, target in enumerate(targets):
            frame = Frame(key.step, index, len(targets), 0, is_foreach)
            arrived.append(self.walk(TaskKey(target, (*key.frames, frame)), (key,)))
        back = tuple(child for child in arrived if child is not None)
        if len(back) < len(arrived):
            return None
        (join,) = (n.name for n in self.graph.nodes.values() if n.join_of == key.step)
        return self.walk(TaskKey(join, key.frames), back)


def succeeds(node: Node, attempts: Sequence[str], fallbacks: Sequence[str]) -> bool:
    tries = [*attempts, "ok"][: 1 + node.retry.times]
    until_fatal = tries[: tries.index("fatal")] if "fatal" in tries else tries
    if "ok" in until_fatal:
        return True
    catches = [*fallbacks, "ok"][:3]
    until_fatal = catches[: catches.index("fatal")] if "fatal" in catches else catches
    return node.catches and "ok" in until_fatal
