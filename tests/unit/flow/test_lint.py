import linecache
import pickle
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import FlowError
from engine.flow.decorators.specs import attach
from engine.flow.graph import Graph, Kind, Node, Retry
from engine.flow.lint import agree, check, graph_of
from engine.flow.spec import FlowSpec
from engine.worker.loader import load
from tests.unit.flow.bad_flows import BAD_FLOWS, HEAD, BadFlow, steps
from tests.unit.flow.bad_gangs import BAD_GANGS


def flow_of(source: str, file: str) -> type[FlowSpec]:
    """The flow of a cell, as a notebook defines it: the source is in linecache alone."""
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    module = ModuleType("cell")
    exec(compile(source, file, "exec"), module.__dict__)
    flows = [v for v in vars(module).values() if isinstance(v, type) and v is not FlowSpec]
    return next(v for v in reversed(flows) if issubclass(v, FlowSpec))


def cell(body: str, file: str = "<cell 1>") -> type[FlowSpec]:
    return flow_of(f"{HEAD}class Fine(FlowSpec):\n{body}", file)


@pytest.mark.parametrize("bad", BAD_FLOWS + BAD_GANGS, ids=lambda bad: bad.name)
def test_each_fault_is_found_once_with_file_line_and_hint(bad: BadFlow, tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text(bad.text)

    faults = check(load(str(file)))

    assert [f.message for f in faults if bad.says in f.message]
    assert bad.says in faults[0].message
    assert faults[0].where == f"{file}:{bad.line}  {bad.source_line}"
    assert bad.hints in (faults[0].hint or "")
    assert len(faults) == bad.count


def test_every_fault_of_a_flow_is_told_and_the_first_is_raised_with_the_others() -> None:
    flow = cell(steps("start: self.x = 1", "a: self.next(self.nope)", "end: pass"))

    assert len(check(flow)) == 2
    with pytest.raises(FlowError, match="'start' does not call") as caught:
        graph_of(flow)

    assert [e.message for e in caught.value.others] == [
        "step 'a' leads to 'nope', which is not a step"
    ]
    copy = pickle.loads(pickle.dumps(caught.value))
    assert [e.where for e in copy.others] == [e.where for e in caught.value.others]
    assert set(copy.details()) == {"hint", "where"}


def test_a_graph_tells_kinds_splits_and_joins() -> None:
    flow = cell(
        steps(
            "start: self.xs = [1]; self.next(self.a, self.b)",
            "a: self.next(self.c, foreach='xs')",
            "c: self.next(self.d)",
            "d: self.next(self.j)",
            "j(inputs): self.next(self.k)",
            "b: self.next(self.k)",
            "k(inputs): self.next(self.end)",
            "end: pass",
        )
    )

    graph = graph_of(flow)

    assert list(graph.nodes) == ["start", "a", "c", "d", "j", "b", "k", "end"]
    assert {n: graph[n].kind for n in ("start", "a", "c", "end")} == {
        "start": Kind.SPLIT,
        "a": Kind.FOREACH,
        "c": Kind.LINEAR,
        "end": Kind.END,
    }
    assert graph["a"].foreach == "xs"
    assert graph["d"].split_parents == ("start", "a")
    assert (graph["j"].join_of, graph["j"].split_parents) == ("a", ("start",))
    assert (graph["k"].join_of, graph["k"].split_parents) == ("start", ())
    assert graph["start"].where == "<cell 1>:6"


def test_decorators_become_the_nodes_plan() -> None:
    flow = cell(
        "    @retry(times=2, minutes_between_retries=0.5)\n    @timeout(minutes=1, seconds=5)\n"
        '    @step\n    def start(self):\n        "Begins."\n        self.next(self.end)\n'
        "    @step\n    @catch(var='oops')\n    def end(self):\n        pass\n"
    )

    graph = graph_of(flow)

    assert graph["start"].retry == Retry(2, 30.0)
    assert graph["start"].timeout_s == 65.0
    assert graph["start"].doc == "Begins."
    assert not graph["start"].catches
    assert graph["end"].catches
    assert graph["end"].retry == Retry()


def test_attached_decorators_reach_the_graph_and_not_the_class() -> None:
    flow = cell("    @retry(times=1)\n" + steps("start: self.next(self.end)", "end: pass"))

    graph = graph_of(flow, attach(flow, ["retry:times=7,minutes_between_retries=0"]))

    assert [graph[s].retry.times for s in ("start", "end")] == [1, 7]
    assert graph_of(flow)["end"].retry.times == 0


def test_catch_attached_to_a_foreach_is_a_fault() -> None:
    flow = cell(
        steps(
            "start: self.xs = [1]; self.next(self.a, foreach='xs')",
            "a: self.next(self.j)",
            "j(inputs): self.next(self.end)",
            "end: pass",
        )
    )

    assert check(flow) == []
    assert [e.message for e in check(flow, attach(flow, ["catch"]))] == [
        "step 'start' has @catch, but splits by foreach='xs': after a failure there would be "
        "nothing to iterate over"
    ]


def test_steps_parameters_and_decorators_are_inherited() -> None:
    flow = flow_of(
        HEAD
        + "class Base(FlowSpec):\n    alpha = Parameter('alpha', default=1)\n    @retry(times=1)\n"
        + steps("start: self.next(self.middle)", "middle: self.next(self.end)")
        + "class Mixin:\n"
        + steps("end: pass")
        + "class Child(Mixin, Base):\n"
        + steps("middle: self.x = 2; self.next(self.end)"),
        "<cell 2>",
    )

    graph = graph_of(flow)

    assert sorted(graph.nodes) == ["end", "middle", "start"]
    assert graph["start"].retry.times == 1
    assert graph["middle"].where == "<cell 2>:19"


def test_an_overridden_step_that_is_no_step_any_more_is_gone() -> None:
    flow = flow_of(
        HEAD
        + "class Base(FlowSpec):\n"
        + steps("start: self.next(self.end)", "extra: self.next(self.end)", "end: pass")
        + "class Child(Base):\n    extra = None\n",
        "<cell 3>",
    )

    assert list(graph_of(flow).nodes) == ["start", "end"]


def test_any_step_can_be_marked_as_first_and_last() -> None:
    flow = cell(
        "    @step(start=True)\n    def load(self):\n        self.next(self.save)\n"
        "    @step(end=True)\n    def save(self):\n        pass\n"
    )

    graph = graph_of(flow)

    assert (graph.start, graph.end) == ("load", "save")


def test_a_flow_of_one_step_starts_and_ends_with_it() -> None:
    graph = graph_of(cell(steps("only: self.x = 1")))

    assert (graph.start, graph.end) == ("only", "only")
    assert graph["only"].kind is Kind.END


def test_a_next_inside_of_an_inner_function_is_not_the_steps() -> None:
    flow = cell(
        "    @step\n    def start(self):\n        def inner():\n            self.next(self.start)\n"
        "        self.next(self.end)\n" + steps("end: pass")
    )

    assert graph_of(flow)["start"].next == ("end",)


@pytest.mark.parametrize(
    "body",
    [
        "self.xs = []; self.xs.append(1); ",
        "self.xs = []; self.fill(); ",
        "self.xs = None; fill(self); ",
        "self.xs = []; self.xs += [1]; ",
        "self.xs, self.ys = [1], [2]; ",
        "self.xs = [1]; ",
        "self.xs = 'ab'; ",
        "self.xs: list = [1]; ",
        "",
    ],
)
def test_a_foreach_that_may_have_items_is_no_fault(body: str) -> None:
    flow = cell(
        steps(
            f"start: {body}self.next(self.a, foreach='xs')",
            "a: self.next(self.j)",
            "j(inputs): self.next(self.end)",
            "end: pass",
            "!fill: pass",
        )
    )

    assert check(flow) == []


def test_wrapped_steps_are_read_where_they_are_written() -> None:
    flow = flow_of(
        "import functools\n"
        + HEAD
        + "def loud(f):\n    @functools.wraps(f)\n    def inner(*args):\n        return f(*args)\n"
        "    return inner\n\n\nclass Fine(FlowSpec):\n    @loud\n"
        + steps("start: self.next(self.end)", "end: pass"),
        "<cell 4>",
    )

    graph = graph_of(flow)

    assert graph["start"].next == ("end",)
    assert graph["start"].where == "<cell 4>:15"


def test_a_flow_whose_source_cannot_be_had_is_refused() -> None:
    flow = cell(steps("start: self.next(self.end)", "end: pass"), "<cell 5>")
    del linecache.cache["<cell 5>"]

    faults = check(flow)

    assert "source of step 'start' cannot be read" in faults[0].message
    assert "cell of a notebook" in (faults[0].hint or "")


def test_a_source_that_changed_since_is_refused() -> None:
    flow = cell(steps("start: self.next(self.end)", "end: pass"), "<cell 6>")
    linecache.cache["<cell 6>"] = (3, None, ["def (\n"], "<cell 6>")

    assert "cannot be read" in check(flow)[0].message


def test_a_step_that_is_no_function_is_refused() -> None:
    flow = cell(steps("start: self.next(self.end)", "end: pass"))

    class Marked:
        __aflow_step__ = flow.start.__aflow_step__  # type: ignore[attr-defined]

    flow.extra = Marked()  # type: ignore[attr-defined]

    assert "is marked as a step, but is not a function" in check(flow)[0].message


def test_a_class_name_outside_of_ascii_is_refused() -> None:
    flow = flow_of(
        f"{HEAD}class Größe(FlowSpec):\n" + steps("start: self.next(self.end)", "end: pass"),
        "<cell 7>",
    )

    assert "flow name 'Größe' cannot be part of a path" in check(flow)[0].message


def test_a_transition_that_agrees_with_the_source_passes() -> None:
    agree(Node("a", Kind.SPLIT, next=("b", "c")), ("b", "c"), None)
    agree(Node("a", Kind.FOREACH, next=("b",), foreach="xs"), ("b",), "xs")


@pytest.mark.parametrize(
    ("targets", "foreach"), [(("c",), "xs"), (("b",), None), (("b",), "ys"), ((), None)]
)
def test_a_transition_that_differs_from_the_source_is_refused(
    targets: tuple[str, ...], foreach: str | None
) -> None:
    node = Node("a", Kind.FOREACH, next=("b",), foreach="xs", where="f.py:3")

    with pytest.raises(FlowError, match="its source says b \\(foreach='xs'\\)") as caught:
        agree(node, targets, foreach)

    assert caught.value.where == "f.py:3"


class Writer:
    """Writes a flow for a random shape, and knows the shape's splits and joins."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.parents: dict[str, tuple[str, ...]] = {}
        self.joins: dict[str, str] = {}

    def name(self, stack: tuple[str, ...]) -> str:
        name = f"s{len(self.parents)}"
        self.parents[name] = stack
        return name

    def block(self, shape: object, stack: tuple[str, ...], after: str) -> str:
        """Write a block that leads to `after`; return its first step."""
        first = self.name(stack)
        if shape is None:
            self.parts.append(f"{first}: self.next(self.{after})")
            return first
        join = self.name(stack)
        inner = (*stack, first)
        kind, branches = shape  # type: ignore[misc]
        if kind == "foreach":
            target = self.sequence(branches, inner, join)
            self.parts.append(f"{first}: self.xs = [1]; self.next(self.{target}, foreach='xs')")
        else:
            targets = [self.sequence(b, inner, join) for b in branches]
            self.parts.append(f"{first}: self.next({', '.join(f'self.{t}' for t in targets)})")
        self.joins[join] = first
        self.parts.append(f"{join}(inputs): self.next(self.{after})")
        return first

    def sequence(self, shapes: object, stack: tuple[str, ...], after: str) -> str:
        for shape in reversed(shapes):  # type: ignore[call-overload]
            after = self.block(shape, stack, after)
        return after


_sequences = st.recursive(
    st.lists(st.none(), min_size=1, max_size=3),
    lambda inner: st.lists(
        st.one_of(
            st.none(),
            st.tuples(st.just("foreach"), inner),
            st.tuples(st.just("split"), st.lists(inner, min_size=2, max_size=3)),
        ),
        min_size=1,
        max_size=3,
    ),
    max_leaves=12,
)


@given(shapes=_sequences, shuffled=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_every_sound_flow_has_the_splits_and_joins_it_was_made_of(
    shapes: object, shuffled: object
) -> None:
    writer = Writer()
    first = writer.sequence(shapes, (), "end")
    parts = [f"start: self.next(self.{first})", *writer.parts, "end: pass"]
    shuffled.shuffle(parts)  # type: ignore[attr-defined]

    graph = graph_of(cell(steps(*parts), "<random>"))

    for name, parents in writer.parents.items():
        assert graph[name].split_parents == parents
        assert graph[name].join_of == writer.joins.get(name)


@given(shapes=_sequences, data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_sound_flow_with_one_edge_moved_is_sound_or_refused_and_never_breaks_the_linter(
    shapes: object, data: st.DataObject
) -> None:
    writer = Writer()
    first = writer.sequence(shapes, (), "end")
    parts = [f"start: self.next(self.{first})", *writer.parts, "end: pass"]
    names = [*writer.parents, "start", "end"]
    part = data.draw(st.sampled_from([p for p in parts if "self.next(self." in p]))
    old = part.partition("self.next(self.")[2].partition(")")[0].partition(",")[0]
    new = data.draw(st.sampled_from(names))
    parts[parts.index(part)] = part.replace(f"self.next(self.{old}", f"self.next(self.{new}")

    flow = cell(steps(*parts), "<moved>")

    faults = check(flow)

    assert all(fault.where for fault in faults)
    if not faults:
        graph = graph_of(flow)
        assert isinstance(graph, Graph)
        assert graph["end"].split_parents == ()


def calls_to_lint(count: int) -> int:
    parts = [f"s{i}: self.next(self.s{i + 1})" for i in range(count)]
    flow = cell(
        steps("start: self.next(self.s0)", *parts, f"s{count}: self.next(self.end)", "end: pass"),
        f"<{count}>",
    )
    calls = 0

    def profile(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(profile)
    try:
        graph_of(flow)
    finally:
        sys.setprofile(None)
    return calls


def test_the_cost_of_linting_grows_with_the_steps_and_not_faster() -> None:
    assert calls_to_lint(400) < 4.2 * calls_to_lint(100)
