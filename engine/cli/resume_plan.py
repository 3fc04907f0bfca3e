"""What a resumed run will do, as lines and as JSON."""

from collections.abc import Iterator
from typing import Any

from engine.scheduler.progress import ResumePlanned, StepPlan

SCHEMA = "aflow/resume-plan/1"


def plan_lines(plan: ResumePlanned) -> list[str]:
    """The plan for people: in all, then each step, then what may surprise them."""
    width = max((len(step.step) for step in plan.steps), default=0)
    head = f"Resuming {plan.flow}/{plan.origin_run_id}: {_many(plan.reused)} reused, "
    head += f"{_many(plan.again)}{' or more' if _is_open(plan) else ''} to run"
    steps = [f"  {step.step:<{width}}  {', '.join(_said(step))}" for step in plan.steps]
    return [head, *steps, *_notes(plan)]


def plan_fields(plan: ResumePlanned) -> dict[str, Any]:  # Any: JSON
    """The plan for programs."""
    return {
        "schema": SCHEMA,
        "flow": plan.flow,
        "origin_run_id": plan.origin_run_id,
        "reused": plan.reused,
        "to_run": plan.again,
        "to_run_is_exact": not _is_open(plan),
        "steps": [
            {
                "step": step.step,
                "reused": step.reused,
                "to_run": sum(step.again.values()),
                "to_run_is_exact": not step.is_open,
                "why": {str(why): count for why, count in step.again.items()},
                "first_tasks": [f"{step.step}/{task}" for task in step.tasks],
                "reused_of_old_code": step.of_old_code,
            }
            for step in plan.steps
        ],
    }


def _said(step: StepPlan) -> Iterator[str]:
    if step.reused:
        yield f"{step.reused:,} reused"
    more = " or more" if step.is_open else ""
    for why, count in step.again.items():
        yield f"{count:,}{more} to run: {why}{_named(step)}"


def _named(step: StepPlan) -> str:
    """The tasks that run, where others of the step do not and all have one reason."""
    if not step.reused or len(step.again) != 1:
        return ""
    more = ", ..." if sum(step.again.values()) > len(step.tasks) else ""
    return f" ({', '.join(f'{step.step}/{task}' for task in step.tasks)}{more})"


def _notes(plan: ResumePlanned) -> Iterator[str]:
    for step in plan.steps:
        if step.of_old_code:
            yield (
                f"  note: {step.step} has changed since {_many(step.of_old_code)} of it ran, which "
                f"stand as they are; `--step {step.step}` runs all of it again"
            )


def _is_open(plan: ResumePlanned) -> bool:
    return any(step.is_open for step in plan.steps)


def _many(count: int) -> str:
    return f"{count:,} task{'' if count == 1 else 's'}"
