"""What a join is given: its branches' tasks, made one at a time, when they are asked for."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, overload
from weakref import WeakValueDictionary

from engine.flow.words import did_you_mean, listed

if TYPE_CHECKING:
    from engine.flow.spec import FlowSpec


class Inputs:
    """A join's inputs, in index order: `inputs[i]`, `inputs.step_name`, `for i in inputs`, `len`.

    Not a Sequence: its methods `count` and `index` would hide steps of these names. An input is
    made again when nothing holds it any more, so a join of 100,000 needs the memory of one.

    Args:
        steps: the step that each input comes from, in index order.
        make: builds the input at an index, from 0 to len(steps) - 1.
    """

    __slots__ = ("__weakref__", "_held", "_make", "_steps")

    def __init__(self, steps: Sequence[str], make: "Callable[[int], FlowSpec]") -> None:
        self._steps = steps
        self._make = make
        self._held: WeakValueDictionary[int, FlowSpec] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._steps)

    @overload
    def __getitem__(self, index: int) -> "FlowSpec": ...
    @overload
    def __getitem__(self, index: slice) -> "list[FlowSpec]": ...
    def __getitem__(self, index: int | slice) -> "FlowSpec | list[FlowSpec]":
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"the join has {len(self)} inputs, numbered from 0")
        made = self._held.get(index)
        if made is None:
            made = self._held[index] = self._make(index)
        return made

    def __iter__(self) -> "Iterator[FlowSpec]":
        return (self[i] for i in range(len(self)))

    def __getattr__(self, step: str) -> "FlowSpec":
        # The last one, as Metaflow does, when all come from one step.
        for index in reversed(range(len(self._steps))):
            if self._steps[index] == step:
                return self[index]
        names = sorted({*self._steps})
        hint = did_you_mean(step, names) or f"they come from {listed(names)}"
        raise AttributeError(f"no input of the join comes from a step {step!r} ({hint})")
