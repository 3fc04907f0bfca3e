"""The checks of a flow's text: names, arguments, decorators, and each step's self.next.

Each is a small function with a name that yields a FlowError for each fault it finds.
"""

import ast
import re
from collections.abc import Callable, Iterator

from engine.errors import FlowError
from engine.flow.decorators import Catch
from engine.flow.decorators.base import is_step, mark_of, place
from engine.flow.draft import Draft
from engine.flow.gangs import (
    gang_and_parallel_go_together,
    gang_has_a_size,
    gang_is_of_one_step,
    parallel_step_stands_between_a_split_and_a_join,
)
from engine.flow.parameters import Parameter, attributes_of, constants_of, normal, parameters_of
from engine.flow.parse import NextCall, StepSource, class_at
from engine.flow.spec import RESERVED_NAMES, unsupported_next
from engine.flow.words import did_you_mean, listed
from engine.ids import SAFE_NAME

Check = Callable[[Draft], Iterator[FlowError]]
StepCheck = Callable[[Draft, StepSource], Iterator[FlowError]]
NextCheck = Callable[[Draft, StepSource, NextCall], Iterator[FlowError]]

_STEP_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,127}\Z")


def flow_has_a_safe_name(draft: Draft) -> Iterator[FlowError]:
    name = draft.cls.__name__
    if not SAFE_NAME.match(name):
        yield FlowError(
            f"flow name {name!r} cannot be part of a path",
            hint="name the class with letters, digits and `_`",
            where=_at_class(draft),
        )


def flow_has_steps(draft: Draft) -> Iterator[FlowError]:
    if not draft.steps:
        yield FlowError(
            f"flow {draft.cls.__name__} has no steps",
            hint="mark its methods with @step",
            where=_at_class(draft),
        )


def flow_has_one_start_and_end(draft: Draft) -> Iterator[FlowError]:
    for which, found in (("start", draft.start), ("end", draft.end)):
        marked = [name for name, mark in draft.marks.items() if getattr(mark, which)]
        if draft.steps and found is None:
            near = did_you_mean(which, draft.steps)
            yield FlowError(
                f"flow {draft.cls.__name__} has no step {which!r}",
                hint=near or f"add a step `def {which}(self)`, or mark one @step({which}=True)",
                where=_at_class(draft),
            )
        if len(marked) > 1:
            yield FlowError(
                f"steps {listed(map(repr, marked))} are all marked @step({which}=True)",
                hint="mark one of them",
                where=draft.steps[marked[1]].at(),
            )


def no_name_of_flowspec_is_taken(draft: Draft) -> Iterator[FlowError]:
    for name, value in attributes_of(draft.cls).items():
        if name not in RESERVED_NAMES:
            continue
        what = "parameter" if isinstance(value, Parameter) else "attribute"
        where = value.where if isinstance(value, Parameter) else _at_class(draft)
        if is_step(value):
            what, where = "step", draft.steps[name].at()
        yield FlowError(
            f"{what} name {name!r} is reserved: it belongs to FlowSpec",
            hint="give it another name",
            where=where,
        )


def parameters_are_sound(draft: Draft) -> Iterator[FlowError]:
    seen: dict[str, Parameter] = {}
    for parameter in parameters_of(draft.cls).values():
        for fault in parameter.faults():
            yield FlowError(fault, where=parameter.where)
        first = seen.setdefault(normal(str(parameter.name)), parameter)
        if first is not parameter:
            yield FlowError(
                f"parameter {parameter.name!r} is there twice; "
                f"case, `-` and `_` make no difference (the other is {first.name!r})",
                hint="give it another name",
                where=parameter.where,
            )


def decorators_are_on_steps(draft: Draft) -> Iterator[FlowError]:
    for name, value in attributes_of(draft.cls).items():
        mark = mark_of(value)
        if mark and mark.decorators and not mark.is_step:
            code = getattr(value, "__code__", None)
            yield FlowError(
                f"method {name!r} has @{mark.decorators[0].name}, but is not a step",
                hint="add @step directly above its `def`",
                where=place(code.co_filename, code.co_firstlineno) if code else None,
            )


def step_has_a_plain_name(draft: Draft, step: StepSource) -> Iterator[FlowError]:
    if not _STEP_NAME.match(step.name):
        yield FlowError(
            f"step name {step.name!r} is not small letters, digits and `_`, not beginning with `_`",
            hint="rename the step",
            where=step.at(),
        )


def step_is_a_plain_function(draft: Draft, step: StepSource) -> Iterator[FlowError]:
    if step.is_async or step.yields:
        kind = "an async function" if step.is_async else "a generator"
        yield FlowError(
            f"step {step.name!r} is {kind}, so calling it would run nothing",
            hint="use asyncio.run(...) inside a plain `def`"
            if step.is_async
            else "collect what it yields in an artifact",
            where=step.at(),
        )


def step_takes_self_or_inputs(draft: Draft, step: StepSource) -> Iterator[FlowError]:
    count = len(step.arguments)
    if not 1 <= count <= 2 or step.extra_arguments:
        yield FlowError(
            f"step {step.name!r} takes {_arguments(step)}",
            hint=f"a step is def {step.name}(self); a join is def {step.name}(self, inputs)",
            where=step.at(),
        )
    elif count == 2 and step.name in (draft.start, draft.end):
        which = "first" if step.name == draft.start else "last"
        yield FlowError(
            f"step {step.name!r} is the {which} step and cannot be a join",
            hint=f"remove `inputs`: def {step.name}(self)"
            + ("; add a join before it" if which == "last" else ""),
            where=step.at(),
        )


def step_calls_next_once_and_last(draft: Draft, step: StepSource) -> Iterator[FlowError]:
    if step.name == draft.end:
        if step.nexts:
            yield FlowError(
                f"step {step.name!r} is the last step, but calls self.next",
                hint="remove the call",
                where=step.at(step.nexts[0].line),
            )
        return
    if not step.nexts:
        yield FlowError(
            f"step {step.name!r} does not call self.next",
            hint="end it with self.next(self.STEP); a call in a base class's method is not seen",
            where=step.at(),
        )
    elif len(step.nexts) > 1:
        lines = listed(str(call.line) for call in step.nexts)
        yield FlowError(
            f"step {step.name!r} calls self.next {len(step.nexts)} times (lines {lines})",
            hint="call it once, as the last statement; choose inside of the next step instead",
            where=step.at(step.nexts[1].line),
        )
    elif not step.nexts[0].is_last:
        yield FlowError(
            f"step {step.name!r} calls self.next, but not as its last statement",
            hint="move the call to the end of the step, out of any `if`, `for`, `with` or `return`",
            where=step.at(step.nexts[0].line),
        )


def step_sets_no_reserved_name(draft: Draft, step: StepSource) -> Iterator[FlowError]:
    for name, places in step.assigned.items():
        if name in RESERVED_NAMES or name in draft.marks:
            owner = "FlowSpec" if name in RESERVED_NAMES else f"the step {name!r}"
            yield FlowError(
                f"step {step.name!r} assigns self.{name}, a name that belongs to {owner}",
                hint="give the artifact another name",
                where=step.at(places[0][0]),
            )


def catch_is_where_it_can_be(draft: Draft, step: StepSource) -> Iterator[FlowError]:
    catch = next((d for d in draft.decorators[step.name] if isinstance(d, Catch)), None)
    if catch is None:
        return
    call = draft.call(step.name)
    split, missing = None, "there would be nothing to iterate over"
    if call and call.foreach is not None:
        split = f"foreach={call.foreach!r}"
    elif call and call.num_parallel is not None:
        split, missing = "num_parallel=", "nobody would know how many tasks follow"
    if split:
        yield FlowError(
            f"step {step.name!r} has @catch, but splits by {split}: after a failure {missing}",
            hint="move @catch to the steps after it, or split in a step of its own",
            where=step.at(),
        )
    taken = {*RESERVED_NAMES, *draft.marks, *parameters_of(draft.cls), *constants_of(draft.cls)}
    if catch.var in taken:
        yield FlowError(
            f"step {step.name!r} has @catch(var={catch.var!r}), a name that is taken",
            hint="choose another name for the artifact",
            where=step.at(),
        )


def next_is_of_this_release(draft: Draft, step: StepSource, call: NextCall) -> Iterator[FlowError]:
    keywords = (*call.keywords, *(["condition"] if call.branches else ()))
    for keyword in dict.fromkeys(keywords):
        error = unsupported_next(step.name, keyword)
        error.where = step.at(call.line)
        yield error


def next_can_be_read(draft: Draft, step: StepSource, call: NextCall) -> Iterator[FlowError]:
    for text in call.odd:
        what = text.removeprefix("foreach=")
        if text != what:
            hint = "write the artifact's name in quotes: foreach='items'"
        elif what.strip("\"'") in draft.steps:
            hint = "write self." + what.strip("\"'")
        else:
            hint = "name each step as self.STEP; the graph is read before anything runs"
        yield FlowError(
            f"step {step.name!r} calls self.next with {text}, which is not a step of the flow"
            if text == what
            else f"step {step.name!r} calls self.next with {text}, which is not a name in quotes",
            hint=hint,
            where=step.at(call.line),
        )


def next_leads_to_steps(draft: Draft, step: StepSource, call: NextCall) -> Iterator[FlowError]:
    others = [name for name in draft.steps if name != step.name]
    for target in dict.fromkeys(call.targets):
        if target in draft.steps:
            continue
        is_method = callable(getattr(draft.cls, target, None))
        yield FlowError(
            f"step {step.name!r} leads to {target!r}, which is not a step",
            hint=f"add @step above `def {target}`"
            if is_method
            else did_you_mean(target, others) or f"the steps are {listed(draft.steps)}",
            where=step.at(call.line),
        )
    if step.name in call.targets:
        yield FlowError(
            f"step {step.name!r} leads to itself",
            hint="loop inside of the step; a flow has no cycles",
            where=step.at(call.line),
        )
    if len(set(call.targets)) < len(call.targets):
        yield FlowError(
            f"step {step.name!r} leads to the same step twice: {listed(call.targets)}",
            hint="name each step once; foreach= runs one step many times",
            where=step.at(call.line),
        )


def next_has_targets(draft: Draft, step: StepSource, call: NextCall) -> Iterator[FlowError]:
    if call.odd or call.branches:
        return
    if not call.targets:
        yield FlowError(
            f"step {step.name!r} calls self.next without a step",
            hint="name the step that follows: self.next(self.STEP)",
            where=step.at(call.line),
        )
    elif call.foreach is not None and len(call.targets) > 1:
        yield FlowError(
            f"step {step.name!r} calls self.next with foreach={call.foreach!r} and "
            f"{len(call.targets)} steps",
            hint="foreach= takes one step; let that one branch",
            where=step.at(call.line),
        )


def foreach_is_over_something(
    draft: Draft, step: StepSource, call: NextCall
) -> Iterator[FlowError]:
    name = call.foreach
    if name is None:
        return
    problem, line = None, call.line
    places = step.assigned.get(name, ())
    if name in draft.marks or name in RESERVED_NAMES or not name.isidentifier():
        problem = "which cannot be an artifact"
    elif places:
        kinds = [_not_iterable(value, is_read=name in step.read) for _, value in places]
        if all(kinds) and not step.shares_self:
            problem, line = f"which is {kinds[-1]}", places[-1][0]
    else:
        problem = _constant_not_iterable(draft, name)
    if problem:
        yield FlowError(
            f"step {step.name!r} iterates over self.{name}, {problem}",
            hint="give it a list with at least one item",
            where=step.at(line),
        )


def _not_iterable(value: ast.expr | None, *, is_read: bool) -> str | None:
    """What a literal is, if nothing can be iterated over in it; None if it may be sound."""
    if isinstance(value, ast.Constant) and not isinstance(value.value, str | bytes):
        return repr(value.value)
    empty = (
        (isinstance(value, ast.List | ast.Tuple) and not value.elts)
        or (isinstance(value, ast.Dict) and not value.keys)
        or (isinstance(value, ast.Constant) and not value.value)
    )
    # An empty list that the step looks at again, it probably fills.
    return "empty" if empty and not is_read else None


def _constant_not_iterable(draft: Draft, name: str) -> str | None:
    parameter = parameters_of(draft.cls).get(name)
    if parameter is not None:
        one = parameter.type in (int, float, bool)
        return f"a parameter that is one {parameter.type_name}" if one else None
    constants = constants_of(draft.cls)
    if name in constants and not hasattr(type(constants[name]), "__iter__"):
        return f"a class constant that is {constants[name]!r:.60}"
    return None


def _arguments(step: StepSource) -> str:
    if step.extra_arguments:
        return "arguments other than self and inputs"
    return listed(step.arguments) or "no argument, not even self"


def _at_class(draft: Draft) -> str | None:
    """The class statement; else the first step."""
    steps = draft.steps.values()
    at = class_at(draft.cls, dict.fromkeys(step.file for step in steps))
    return at or next((step.at() for step in steps), None)


FLOW_CHECKS: tuple[Check, ...] = (
    flow_has_a_safe_name,
    flow_has_steps,
    flow_has_one_start_and_end,
    no_name_of_flowspec_is_taken,
    parameters_are_sound,
    decorators_are_on_steps,
)
STEP_CHECKS: tuple[StepCheck, ...] = (
    step_has_a_plain_name,
    step_is_a_plain_function,
    step_takes_self_or_inputs,
    step_calls_next_once_and_last,
    step_sets_no_reserved_name,
    catch_is_where_it_can_be,
    parallel_step_stands_between_a_split_and_a_join,
)
NEXT_CHECKS: tuple[NextCheck, ...] = (
    next_is_of_this_release,
    next_can_be_read,
    next_has_targets,
    next_leads_to_steps,
    foreach_is_over_something,
    gang_is_of_one_step,
    gang_has_a_size,
    gang_and_parallel_go_together,
)


def text_faults(draft: Draft) -> Iterator[FlowError]:
    """All faults of the text, those of the flow as a whole first, then step by step."""
    for check in FLOW_CHECKS:
        yield from check(draft)
    for step in draft.steps.values():
        for step_check in STEP_CHECKS:
            yield from step_check(draft, step)
        call = draft.call(step.name)
        if call is not None:
            for next_check in NEXT_CHECKS:
                yield from next_check(draft, step, call)
