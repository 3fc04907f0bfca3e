"""A flow's class to its graph, and all that can be known to be wrong before it runs.

The checks of the text (checks.py) come first: the graph is only looked at when every step can be
read, since one that cannot would make faults of all that follow it.
"""

from collections.abc import Iterator

from engine.errors import EngineError, FlowError
from engine.flow.checks import text_faults
from engine.flow.decorators import Catch, Retry, Timeout
from engine.flow.decorators.specs import Decorators
from engine.flow.draft import Draft, draft_of
from engine.flow.graph import Graph, Kind, Node
from engine.flow.graph import Retry as RetryPlan
from engine.flow.shape import Shape, cycle, shape_of
from engine.flow.spec import FlowSpec
from engine.flow.words import listed


def graph_of(cls: type[FlowSpec], extra: Decorators | None = None) -> Graph:
    """The shape of a flow.

    Args:
        cls: the flow.
        extra: decorators for steps that lack them, as `decorators.specs.attach` makes them.

    Raises:
        FlowError: the first fault; its `others` are the rest.
    """
    draft, shape, faults = _look(cls, extra)
    EngineError.raise_first(faults)
    nodes = {name: _node(draft, shape, name) for name in draft.steps}
    return Graph(cls.__name__, nodes, draft.start or "", draft.end or "")


def check(cls: type[FlowSpec], extra: Decorators | None = None) -> list[FlowError]:
    """Every fault of a flow, in the order in which to mend them; empty for a sound flow."""
    return _look(cls, extra)[2]


def _look(cls: type[FlowSpec], extra: Decorators | None) -> tuple[Draft, Shape, list[FlowError]]:
    shape = Shape()
    draft, faults = draft_of(cls, extra)
    if not faults:
        faults = list(text_faults(draft))
    if not faults:
        faults = list(_cycle_faults(draft))
    if not faults and draft.start and draft.end:
        shape = shape_of(draft.edges(), draft.start, draft.end)
        faults = list(_shape_faults(draft, shape))
    return draft, shape, faults


def _cycle_faults(draft: Draft) -> Iterator[FlowError]:
    names = cycle(draft.edges())
    if names:
        last = draft.steps[names[-1]]
        yield FlowError(
            f"the flow goes in a circle: {' -> '.join([*names, names[0]])}",
            hint="lead the last of them to a step that comes later",
            where=last.at(last.nexts[0].line),
        )


def _shape_faults(draft: Draft, shape: Shape) -> Iterator[FlowError]:
    for step in draft.steps.values():
        if step.name not in shape.order:
            yield FlowError(
                f"step {step.name!r} is never reached from {draft.start!r}",
                hint=f"lead a step to it with self.next(self.{step.name}), or remove it",
                where=step.at(),
            )
    for fault in shape.faults:
        step = draft.steps[fault.step]
        yield FlowError(fault.message, hint=fault.hint, where=step.at())


def _node(draft: Draft, shape: Shape, name: str) -> Node:
    call = draft.call(name)
    kind = Kind.END
    if call:
        kind = Kind.SPLIT if len(call.targets) > 1 else Kind.LINEAR
        kind = Kind.FOREACH if call.foreach is not None else kind
        kind = Kind.GANG if call.num_parallel is not None else kind
    retry, catches, timeout_s = RetryPlan(), False, None
    for decorator in draft.decorators[name]:
        if isinstance(decorator, Retry):
            retry = RetryPlan(decorator.times, 60.0 * decorator.minutes_between_retries)
        elif isinstance(decorator, Timeout):
            timeout_s = decorator.total_s
        catches = catches or isinstance(decorator, Catch)
    return Node(
        name=name,
        kind=kind,
        next=call.targets if call else (),
        foreach=call.foreach if call else None,
        is_join=draft.is_join(name),
        join_of=shape.join_of.get(name),
        split_parents=shape.parents[name],
        retry=retry,
        catches=catches,
        is_parallel=draft.is_parallel(name),
        timeout_s=timeout_s,
        doc=draft.steps[name].doc,
        where=draft.steps[name].where,
        code=draft.steps[name].code,
    )


def agree(
    node: Node, targets: tuple[str, ...], foreach: str | None, *, is_gang: bool = False
) -> None:
    """Check that a step went where its source says.

    Raises:
        FlowError: it went elsewhere, which the scheduler has made no plans for.
    """
    if (node.next, node.foreach, node.kind is Kind.GANG) == (targets, foreach, is_gang):
        return
    went = _going(targets, foreach, is_gang=is_gang)
    should = _going(node.next, node.foreach, is_gang=node.kind is Kind.GANG)
    raise FlowError(
        f"step {node.name!r} went to {went}; its source says {should}",
        hint="call self.next as it stands in the class, by no other way",
        where=node.where,
    )


def _going(targets: tuple[str, ...], foreach: str | None, *, is_gang: bool) -> str:
    many = f" (foreach={foreach!r})" if foreach else " (num_parallel)" if is_gang else ""
    return listed(targets) + many
