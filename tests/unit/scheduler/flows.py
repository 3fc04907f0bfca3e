"""Flows for tests of the scheduler, written as nested shapes instead of classes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from engine.flow.graph import Graph, Kind, Node, Retry
from engine.ids import Frame, TaskKey


@dataclass(frozen=True)
class Step:
    """One linear step."""

    name: str
    retry: Retry = field(default_factory=Retry)
    catches: bool = False
    timeout_s: float | None = None


@dataclass(frozen=True)
class Branch:
    """A static split named `name`, its arms, and the join `join_<name>`."""

    name: str
    arms: tuple[tuple["Shape", ...], ...]


@dataclass(frozen=True)
class Foreach:
    """A foreach named `name` over a body, and the join `join_<name>`."""

    name: str
    body: tuple["Shape", ...]


@dataclass(frozen=True)
class Gang:
    """A step named `name` with num_parallel, the parallel step, and the join `join_<name>`."""

    name: str
    body: Step


Shape = Step | Branch | Foreach | Gang


def flow(*shapes: Shape) -> Graph:
    """Build the flow start, `shapes`, end. A first split may itself be the start."""
    nodes: dict[str, Node] = {}
    first = shapes[0] if shapes else None
    if first is None or first.name != "start":
        shapes = (Step("start"), *shapes)
    nodes["end"] = Node("end", Kind.END)
    _sequence(shapes, "end", (), nodes)
    return Graph("Flow", dict(reversed(nodes.items())))


def _sequence(
    shapes: Sequence[Shape], following: str, parents: tuple[str, ...], nodes: dict[str, Node]
) -> str:
    """Add the shapes before the step `following`; return the step that they begin with."""
    for shape in reversed(shapes):
        match shape:
            case Step(name, retry, catches, timeout_s):
                nodes[name] = Node(
                    name,
                    Kind.LINEAR,
                    (following,),
                    split_parents=parents,
                    retry=retry,
                    catches=catches,
                    timeout_s=timeout_s,
                )
            case Branch(name, arms):
                join = _join(name, following, parents, nodes)
                firsts = tuple(_sequence(arm, join, (*parents, name), nodes) for arm in arms)
                nodes[name] = Node(name, Kind.SPLIT, firsts, split_parents=parents)
            case Foreach(name, body):
                join = _join(name, following, parents, nodes)
                only = _sequence(body, join, (*parents, name), nodes)
                nodes[name] = Node(
                    name, Kind.FOREACH, (only,), foreach="items", split_parents=parents
                )
            case Gang(name, body):
                join = _join(name, following, parents, nodes)
                only = _sequence((body,), join, (*parents, name), nodes)
                nodes[only] = replace(nodes[only], is_parallel=True)
                nodes[name] = Node(name, Kind.GANG, (only,), split_parents=parents)
        following = shape.name
    return following


def _join(split: str, following: str, parents: tuple[str, ...], nodes: dict[str, Node]) -> str:
    name = f"join_{split}"
    nodes[name] = Node(
        name, Kind.LINEAR, (following,), is_join=True, join_of=split, split_parents=parents
    )
    return name


def item(step: str, *places: tuple[str, int, int]) -> TaskKey:
    """Name a task by its (foreach, index, total) levels."""
    return TaskKey(step, tuple(Frame(split, index, total) for split, index, total in places))


def arm(step: str, split: str, index: int, total: int = 2) -> TaskKey:
    """Name a task of a static branch."""
    return TaskKey(step, (Frame(split, index, total, is_foreach=False),))


RETRYING = Retry(times=1, delay_s=30.0)
LINE = flow(Step("work"))
FANNED = flow(Foreach("start", (Step("work", RETRYING),)))
NESTED = flow(Foreach("start", (Foreach("outer", (Step("inner"),)), Step("after"))))
BRANCHED = flow(Branch("start", ((Step("left"),), (Step("right"),))))
GANG = flow(Gang("start", Step("work", RETRYING)))
CATCHING = flow(Step("work", RETRYING, catches=True))
