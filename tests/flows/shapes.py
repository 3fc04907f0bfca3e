"""Graph shapes, and the text of a flow of a shape whose steps do what a behaviour puts into them.

A behaviour does not know the shapes: it chooses steps by what they are (`Place.kinds`), so each new
shape is tried with every behaviour and each new behaviour on every shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from textwrap import indent


@dataclass(frozen=True)
class Place:
    """A step of a shape.

    `depth` counts the foreach levels around it. `kinds` is what behaviours choose by: its position
    (start, inner, end) and what it does (split, foreach, join, linear).
    """

    name: str
    next: tuple[str, ...] = ()
    foreach: Sequence[object] | None = None
    is_join: bool = False
    depth: int = 0

    @property
    def kinds(self) -> set[str]:
        found = {self.name} if self.name in ("start", "end") else {"inner"}
        if self.foreach is not None:
            found.add("foreach")
        elif len(self.next) > 1:
            found.add("split")
        elif not self.is_join:
            found.add("linear")
        return found | ({"join"} if self.is_join else set())


@dataclass(frozen=True)
class Shape:
    """`tasks` is how many tasks each step has, for one run."""

    name: str
    places: tuple[Place, ...]
    tasks: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def count(self, step: str) -> int:
        return self.tasks.get(step, 1)

    def having(self, kind: str) -> list[Place]:
        return [place for place in self.places if kind in place.kinds]

    @property
    def has_plain_inner(self) -> bool:
        """Whether there is a step between start and end that neither splits nor joins."""
        return any({"inner", "linear"} <= place.kinds for place in self.places)


def _shape(name: str, *places: Place, **tasks: int) -> Shape:
    return Shape(name, places, tasks)


_END = Place("end")
SHAPES = (
    _shape("two_steps", Place("start", ("end",)), _END),
    _shape("linear", Place("start", ("a",)), Place("a", ("b",)), Place("b", ("end",)), _END),
    _shape(
        "branch",
        Place("start", ("a", "b", "c")),
        Place("a", ("meet",)),
        Place("b", ("meet",)),
        Place("c", ("meet",)),
        Place("meet", ("end",), is_join=True),
        _END,
    ),
    _shape(
        "branch_in_branch",
        Place("start", ("a", "b")),
        Place("a", ("a1", "a2")),
        Place("a1", ("meet_a",)),
        Place("a2", ("meet_a",)),
        Place("meet_a", ("meet",), is_join=True),
        Place("b", ("meet",)),
        Place("meet", ("end",), is_join=True),
        _END,
    ),
    _shape(
        "foreach",
        Place("start", ("each",), ["x", "y", "z"]),
        Place("each", ("meet",), depth=1),
        Place("meet", ("end",), is_join=True),
        _END,
        each=3,
    ),
    _shape(
        "foreach_of_two_steps",
        Place("start", ("each",), [10, 20]),
        Place("each", ("then",), depth=1),
        Place("then", ("meet",), depth=1),
        Place("meet", ("end",), is_join=True),
        _END,
        each=2,
        then=2,
    ),
    _shape(
        "foreach_in_foreach",
        Place("start", ("outer",), ["p", "q"]),
        Place("outer", ("inner",), [1, 2, 3], depth=1),
        Place("inner", ("meet_inner",), depth=2),
        Place("meet_inner", ("meet",), is_join=True, depth=1),
        Place("meet", ("end",), is_join=True),
        _END,
        outer=2,
        inner=6,
        meet_inner=2,
    ),
    _shape(
        "foreach_in_branch",
        Place("start", ("a", "b")),
        Place("a", ("each",), [1, 2]),
        Place("each", ("meet_a",), depth=1),
        Place("meet_a", ("meet",), is_join=True),
        Place("b", ("meet",)),
        Place("meet", ("end",), is_join=True),
        _END,
        each=2,
    ),
    _shape(
        "branch_in_foreach",
        Place("start", ("each",), ["x", "y"]),
        Place("each", ("a", "b"), depth=1),
        Place("a", ("meet_each",), depth=1),
        Place("b", ("meet_each",), depth=1),
        Place("meet_each", ("meet",), is_join=True, depth=1),
        Place("meet", ("end",), is_join=True),
        _END,
        each=2,
        a=2,
        b=2,
        meet_each=2,
    ),
    _shape(
        "wide",
        Place("start", ("each",), range(60)),
        Place("each", ("meet",), depth=1),
        Place("meet", ("end",), is_join=True),
        _END,
        each=60,
    ),
    _shape(
        "foreach_of_one",
        Place("start", ("each",), ["only"]),
        Place("each", ("meet",), depth=1),
        Place("meet", ("end",), is_join=True),
        _END,
    ),
)


class Behaviour:
    """What the steps of a flow do, and what must be true of a run of it. Override what differs."""

    imports: Sequence[str] = ()
    class_body: str = ""

    def suits(self, shape: Shape) -> bool:
        return True

    def decorators(self, place: Place) -> list[str]:
        return []

    def body(self, place: Place) -> str:
        """Statements before `self.next`; `inputs` is there in a join."""
        return "pass"


def flow_source(shape: Shape, behaviour: Behaviour) -> str:
    """The text of a flow file. The class is named Shaped."""
    names = ", ".join(["FlowSpec", *behaviour.imports, "step"])
    parts = [f"from engine import {names}", "", "", "class Shaped(FlowSpec):"]
    parts.append(indent(behaviour.class_body or '"""A flow made for a test."""', "    "))
    for place in shape.places:
        arguments = "self, inputs" if place.is_join else "self"
        lines = [*behaviour.decorators(place), "@step", f"def {place.name}({arguments}):"]
        lines.append(indent(behaviour.body(place), "    "))
        if place.foreach is not None:
            lines.append(f"    self.items_{place.name} = {place.foreach!r}")
            lines.append(f'    self.next(self.{place.next[0]}, foreach="items_{place.name}")')
        elif place.next:
            lines.append(f"    self.next({', '.join(f'self.{name}' for name in place.next)})")
        parts += ["", indent("\n".join(lines), "    ")]
    return "\n".join([*parts, "", "", 'if __name__ == "__main__":', "    Shaped()", ""])
