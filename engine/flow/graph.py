"""The static shape of a flow: nodes, edges, where each stands in the source. Pure values."""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field


class Kind(StrEnum):
    """How a step ends: where its `self.next` leads."""

    LINEAR = "linear"
    SPLIT = "split"  # several targets at once
    FOREACH = "foreach"  # one target, many times
    END = "end"


class Retry(Struct, frozen=True):
    """How often, and after how many seconds, a failed attempt is tried again."""

    times: int = 0
    delay_s: float = 0.0


class Node(Struct, frozen=True):
    """One step as the scheduler sees it.

    `split_parents` are the splits (static or foreach) open around the step, outermost first;
    `join_of` names the split that this join closes. `where` is "file:line" of the step, `code` a
    fingerprint of its source: equal for equal text, "" if it is not known.
    """

    name: str
    kind: Kind
    next: tuple[str, ...] = ()
    foreach: str | None = None
    is_join: bool = False
    join_of: str | None = None
    split_parents: tuple[str, ...] = ()
    retry: Retry = field(default_factory=Retry)
    catches: bool = False
    timeout_s: float | None = None
    doc: str = ""
    where: str = ""
    code: str = ""


class Graph(Struct, frozen=True):
    """A flow's steps by name, in the order of the source."""

    flow: str
    nodes: Mapping[str, Node]
    start: str = "start"
    end: str = "end"

    def __getitem__(self, step: str) -> Node:
        return self.nodes[step]


class Transition(Struct, frozen=True):
    """Where a finished task said it goes: its targets and, for foreach, the number of children."""

    targets: tuple[str, ...]
    fanout: int | None = None
