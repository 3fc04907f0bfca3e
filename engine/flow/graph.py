"""The static shape of a flow: nodes, edges, where each stands in the source. Pure values."""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field


class Kind(StrEnum):
    """How a step ends: where its `self.next` leads."""

    LINEAR = "linear"
    SPLIT = "split"  # several targets at once
    FOREACH = "foreach"  # one target, many times
    GANG = "gang"  # one target, many times at once
    END = "end"


class Retry(Struct, frozen=True):
    """How often, and after how many seconds, a failed attempt is tried again."""

    times: int = 0
    delay_s: float = 0.0


class Node(Struct, frozen=True):
    """One step as the scheduler sees it.

    `split_parents` are the splits (of any kind) open around the step, outermost first;
    `join_of` names the split that this join closes. `where` is "file:line" of the step, `code` a
    fingerprint of its source: equal for equal text, "" if it is not known. The tasks of a step that
    `is_parallel` are gangs: they start together, and commit together or not at all.
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
    is_parallel: bool = False
    timeout_s: float | None = None
    doc: str = ""
    where: str = ""
    code: str = ""


FANS_OUT = frozenset({Kind.FOREACH, Kind.GANG})
"""Kinds of steps that say how many children they have, and hand each an item."""


class Graph(Struct, frozen=True):
    """A flow's steps by name, in the order of the source."""

    flow: str
    nodes: Mapping[str, Node]
    start: str = "start"
    end: str = "end"

    def __getitem__(self, step: str) -> Node:
        return self.nodes[step]


class Transition(Struct, frozen=True):
    """Where a finished task said it goes: its targets and, if it fans one out, how many times."""

    targets: tuple[str, ...]
    fanout: int | None = None
