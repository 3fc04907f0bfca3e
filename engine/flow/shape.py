"""Which splits are open around each step, and which split each join closes. Pure.

A split opens a level, a join closes the innermost one. In a well-formed flow every way to a step
passes the same splits, so each step has one stack of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.flow.words import listed


class Edges(NamedTuple):
    """Where a step leads, as far as the shape depends on it."""

    next: tuple[str, ...]
    fans_out: bool = False
    is_join: bool = False

    @property
    def splits(self) -> bool:
        return self.fans_out or len(self.next) > 1


class Fault(NamedTuple):
    """What is wrong with the shape, at which step."""

    step: str
    message: str
    hint: str


@dataclass
class Shape:
    """`parents`: the splits open around each step, outermost first. `order`: steps, each after all
    that lead to it."""

    parents: dict[str, tuple[str, ...]] = field(default_factory=dict)
    join_of: dict[str, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def cycle(steps: Mapping[str, Edges]) -> list[str] | None:
    """The steps of a cycle, in order, if there is one."""
    done: set[str] = set()
    for first in steps:
        path: dict[str, None] = {}
        todo = [(first, iter(steps[first].next))] if first not in done else []
        path.update(dict.fromkeys(name for name, _ in todo))
        while todo:
            name, targets = todo[-1]
            target = next(targets, None)
            if target is None:
                done.add(name)
                path.pop(name)
                todo.pop()
            elif target in path:
                names = list(path)
                return names[names.index(target) :]
            elif target not in done:
                path[target] = None
                todo.append((target, iter(steps[target].next)))
    return None


def shape_of(steps: Mapping[str, Edges], start: str, end: str) -> Shape:
    """Find the splits around every step that can be reached. `steps` has no cycle."""
    shape = Shape()
    came_from = _order(steps, start, shape)
    broken: set[str] = set()
    for name in shape.order:
        sources = came_from[name]
        if broken.intersection(sources):
            broken.add(name)  # what follows a fault would only repeat it
            continue
        stacks = {s: _inside(s, steps[s], shape.parents[s]) for s in sources} or {"": ()}
        before = len(shape.faults)
        if steps[name].is_join:
            shape.parents[name] = _close(name, stacks, steps, shape)
        else:
            shape.parents[name] = next(iter(stacks.values()))
            if len(stacks) > 1:
                shape.faults.append(_no_join(name, list(stacks), is_end=name == end))
        if name == end and len(shape.faults) == before and shape.parents[name]:
            split = shape.parents[name][-1]
            shape.faults.append(
                Fault(
                    split,
                    f"step {split!r} splits the flow, and no join brings it together before "
                    f"{end!r}",
                    f"add a step `def join(self, inputs)` between {split!r} and {end!r}",
                )
            )
        if len(shape.faults) > before:
            broken.add(name)
    return shape


def _order(steps: Mapping[str, Edges], start: str, shape: Shape) -> dict[str, list[str]]:
    """Fill `shape.order`; return the steps that lead to each step that can be reached."""
    came_from: dict[str, list[str]] = {start: []}
    todo = [start]
    for name in todo:
        for target in steps[name].next:
            if target not in came_from:
                came_from[target] = []
                todo.append(target)
            came_from[target].append(name)
    waiting = {name: len(sources) for name, sources in came_from.items()}
    shape.order.append(start)
    for name in shape.order:
        for target in steps[name].next:
            waiting[target] -= 1
            if waiting[target] == 0:
                shape.order.append(target)
    return came_from


def _inside(name: str, edges: Edges, parents: tuple[str, ...]) -> tuple[str, ...]:
    return (*parents, name) if edges.splits else parents


def _close(
    join: str,
    stacks: Mapping[str, tuple[str, ...]],
    steps: Mapping[str, Edges],
    shape: Shape,
) -> tuple[str, ...]:
    """The splits around a join; records the one that it closes."""
    fault = _close_fault(join, stacks, steps)
    if fault is not None:
        shape.faults.append(fault)
    stack = next(iter(stacks.values()))
    if stack:
        shape.join_of[join] = stack[-1]
    return stack[:-1]


def _close_fault(
    join: str, stacks: Mapping[str, tuple[str, ...]], steps: Mapping[str, Edges]
) -> Fault | None:
    if not all(stacks.values()):
        return Fault(
            join,
            f"step {join!r} is a join, but no split is open where it stands",
            f"remove `inputs`: def {join}(self); or split the flow before it",
        )
    if len(set(stacks.values())) > 1:
        splits = listed(sorted({repr(s[-1]) for s in stacks.values()}))
        return Fault(
            join,
            f"join {join!r} brings together branches of different splits: {splits}",
            "join the inner split first, in a step of its own",
        )
    split = next(iter(stacks.values()))[-1]
    if split in stacks:
        return Fault(
            join,
            f"split {split!r} leads straight to its own join {join!r}",
            f"put a step between {split!r} and {join!r}",
        )
    if len(stacks) != len(steps[split].next):
        return Fault(
            join,
            f"join {join!r} gets {_count(stacks)} of the {len(steps[split].next)} branches of "
            f"split {split!r}: {listed(map(repr, stacks))}",
            f"every branch of {split!r} has to end in the same join",
        )
    return None


def _count(stacks: Mapping[str, object]) -> str:
    return "only one" if len(stacks) == 1 else f"only {len(stacks)}"


def _no_join(name: str, sources: Sequence[str], *, is_end: bool) -> Fault:
    many = listed(map(repr, sources))
    if is_end:
        return Fault(
            name,
            f"step {name!r} is reached from {many}, which no join brings together",
            f"add a step `def join(self, inputs)` before {name!r}, and lead them to it",
        )
    return Fault(
        name,
        f"step {name!r} is reached from {many}, but is not a join",
        f"make it a join: def {name}(self, inputs)",
    )
