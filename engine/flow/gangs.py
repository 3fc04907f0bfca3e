"""The checks of what a flow's text says of gangs: num_parallel= in self.next, and @parallel.

A gang's tasks run at once, and what one of them does the others may wait for. So a step is run by
gangs always or never, it says itself where it goes to no more than the join of its gang, and how
many there are of it is said by the step before it.
"""

import ast
from collections.abc import Iterator

from engine.errors import FlowError
from engine.flow.draft import Draft
from engine.flow.parse import NextCall, StepSource


def gang_is_of_one_step(draft: Draft, step: StepSource, call: NextCall) -> Iterator[FlowError]:
    if call.num_parallel is None:
        return
    if call.foreach is not None:
        yield FlowError(
            f"step {step.name!r} calls self.next with num_parallel= beside "
            f"foreach={call.foreach!r}",
            hint="a foreach of gangs is two steps: one with foreach=, and one with num_parallel=",
            where=step.at(call.line),
        )
    if len(call.targets) > 1:
        yield FlowError(
            f"step {step.name!r} calls self.next with num_parallel= and {len(call.targets)} steps",
            hint="num_parallel= takes one step, all of whose tasks run together",
            where=step.at(call.line),
        )


def gang_has_a_size(draft: Draft, step: StepSource, call: NextCall) -> Iterator[FlowError]:
    given = call.num_parallel
    if isinstance(given, ast.UnaryOp) and isinstance(given.op, ast.USub | ast.UAdd):
        given = given.operand if isinstance(given.op, ast.UAdd) else ast.Constant(-1)
    if not isinstance(given, ast.Constant):
        return  # only its value can tell
    if type(given.value) is not int or given.value < 1:
        text = ast.unparse(call.num_parallel or given)
        yield FlowError(
            f"step {step.name!r} calls self.next with num_parallel={text}",
            hint="num_parallel= takes the number of tasks, a whole number of at least 1",
            where=step.at(call.line),
        )


def gang_and_parallel_go_together(
    draft: Draft, step: StepSource, call: NextCall
) -> Iterator[FlowError]:
    for target in dict.fromkeys(call.targets):
        if target not in draft.steps or draft.is_parallel(target) is (
            call.num_parallel is not None
        ):
            continue
        if call.num_parallel is not None:
            yield FlowError(
                f"step {step.name!r} leads to {target!r} with num_parallel=, but {target!r} has no "
                "@parallel",
                hint=f"add @parallel above `def {target}`; for tasks that do not run together, "
                "use foreach=",
                where=step.at(call.line),
            )
        elif not draft.is_join(target) and target != draft.end:  # which can have no @parallel
            yield FlowError(
                f"step {step.name!r} leads to {target!r}, which has @parallel, without "
                "num_parallel=",
                hint=f"say how many run together: self.next(self.{target}, num_parallel=4)",
                where=step.at(call.line),
            )


def parallel_step_stands_between_a_split_and_a_join(
    draft: Draft, step: StepSource
) -> Iterator[FlowError]:
    if not draft.is_parallel(step.name):
        return
    which = {draft.start: "first", draft.end: "last"}.get(step.name)
    call = draft.call(step.name)
    if which is not None or draft.is_join(step.name):
        yield FlowError(
            f"step {step.name!r} has @parallel, but is "
            + ("a join" if which is None else f"the {which} step"),
            hint="a @parallel step is def STEP(self), between the step that says num_parallel= and "
            "a join",
            where=step.at(),
        )
    elif call is not None and (
        call.foreach is not None or call.num_parallel is not None or len(call.targets) > 1
    ):
        yield FlowError(
            f"step {step.name!r} has @parallel, but splits the flow again",
            hint="lead it to a join, and split after that",
            where=step.at(call.line),
        )
    elif call is not None and any(t in draft.steps and not draft.is_join(t) for t in call.targets):
        yield FlowError(
            f"step {step.name!r} has @parallel, but leads to {call.targets[0]!r}, which is no join",
            hint=f"make it the join of the gang: def {call.targets[0]}(self, inputs)",
            where=step.at(call.line),
        )
