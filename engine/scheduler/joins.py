"""Fan-outs: a cursor over the children not yet started and a barrier over those not yet back.

A fan-out of n costs 8 bytes a child, whatever n is: a child exists as an index until a slot is free
for it, and as its result's offset after it arrived at the join. Nothing here is ever rescanned.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from engine.errors import InvariantError
from engine.ids import Frame, TaskKey
from engine.scheduler.events import ResultRef

_ABSENT = -1  # no frame of a journal lies at a negative offset


@dataclass(slots=True, eq=False)
class Fanout:
    """An open split: its `total` children are started in index order and return in any.

    `targets` holds one step for a foreach or a gang, and one for each child for a static branch.
    `result` is the frame of the split's own manifest. `is_foreach` tells that each child has an
    item there. `parent` is the fan-out around this one.
    """

    split: TaskKey
    result: ResultRef
    targets: tuple[str, ...]
    total: int
    is_foreach: bool
    parent: "Fanout | None"
    issued: int = 0
    arrived: int = 0
    results: "array[int]" = field(init=False)
    scope: tuple[ResultRef, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.results = array("q", (_ABSENT,)) * self.total
        outer = self.parent.scope if self.parent else ()
        self.scope = (*outer, self.result) if self.is_foreach else outer

    @property
    def is_exhausted(self) -> bool:
        return self.issued == self.total

    def issue(self) -> TaskKey:
        """Name the next child; there must be one."""
        index = self.issued
        self.issued = index + 1
        frame = Frame(self.split.step, index, self.total, self.split.visit, self.is_foreach)
        target = self.targets[0 if self.is_foreach else index]
        return TaskKey(target, (*self.split.frames, frame))

    def issue_all(self) -> TaskKey:
        """Issue all children at once, and name the first of them."""
        first = self.issue()
        self.issued = self.total
        return first

    def arrive(self, index: int, result: ResultRef) -> bool:
        """Take in the result of the child's last step; True when it was the last child.

        Raises:
            InvariantError: the child has arrived before.
        """
        if self.results[index] != _ABSENT:
            raise InvariantError(
                f"child {index} of {self.split} arrived twice",
                story=[f"results at {self.results[index]} and {result}"],
            )
        self.results[index] = result
        self.arrived += 1
        return self.arrived == self.total

    def inputs(self) -> Sequence[ResultRef]:
        """The children's results in index order; the array itself, so 8 bytes each."""
        return cast(Sequence[ResultRef], self.results)

    def is_consistent(self) -> bool:
        """Tell whether the counters agree with the results; costs O(children)."""
        return self.arrived == sum(r != _ABSENT for r in self.results) < self.total >= self.issued
