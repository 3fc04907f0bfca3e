"""A flow as it is written, before anything is known to be right about it."""

from typing import NamedTuple

from engine.errors import FlowError
from engine.flow.decorators.base import StepMark, mark_of
from engine.flow.decorators.parallel import Parallel
from engine.flow.decorators.specs import Decorators, decorators_of
from engine.flow.parse import NextCall, StepSource, read_step
from engine.flow.shape import Edges
from engine.flow.spec import FlowSpec, steps_of


class Draft(NamedTuple):
    """What the source says. `start` and `end` are None if no step is one of them."""

    cls: type[FlowSpec]
    steps: dict[str, StepSource]
    marks: dict[str, StepMark]
    decorators: Decorators
    start: str | None
    end: str | None

    def is_join(self, name: str) -> bool:
        """Whether the step takes inputs."""
        return len(self.steps[name].arguments) > 1

    def is_parallel(self, name: str) -> bool:
        """Whether the step's tasks are gangs."""
        return any(isinstance(d, Parallel) for d in self.decorators[name])

    def call(self, name: str) -> NextCall | None:
        """The step's call of self.next; None for the last step, and where it is missing."""
        nexts = self.steps[name].nexts
        return nexts[0] if nexts and name != self.end else None

    def edges(self) -> dict[str, Edges]:
        """Where each step leads."""
        found = {}
        for name in self.steps:
            call = self.call(name)
            found[name] = Edges(
                next=call.targets if call else (),
                fans_out=call is not None and (call.foreach or call.num_parallel) is not None,
                is_join=self.is_join(name),
            )
        return found


def draft_of(cls: type[FlowSpec], extra: Decorators | None) -> tuple[Draft, list[FlowError]]:
    """Read a flow; steps whose source cannot be had are left out, and told as errors."""
    unread: list[FlowError] = []
    steps, marks = {}, {}
    for name, method in steps_of(cls).items():
        marks[name] = mark_of(method) or StepMark()
        try:
            steps[name] = read_step(name, method)
        except FlowError as error:
            unread.append(error)
    start = _first_or_last("start", marks)
    end = _first_or_last("end", marks)
    return Draft(cls, steps, marks, decorators_of(cls, extra), start, end), unread


def _first_or_last(which: str, marks: dict[str, StepMark]) -> str | None:
    """The step marked as the first (or last) one, or named so; a lone step is both."""
    marked = [name for name, mark in marks.items() if getattr(mark, which)]
    if marked:
        return marked[0]
    if which in marks:
        return which
    return next(iter(marks)) if len(marks) == 1 else None
