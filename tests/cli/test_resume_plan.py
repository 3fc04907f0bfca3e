"""A plan in words."""

from engine.cli.resume_plan import plan_fields, plan_lines
from engine.scheduler.memo import Why
from engine.scheduler.progress import ResumePlanned, StepPlan
from tests.cli.events import Shown

PLAN = ResumePlanned(
    "Fan",
    "R1",
    (
        StepPlan("start", 1),
        StepPlan("wide", 1_993, {Why.FAILED: 7}, ("3", "5", "8", "9", "11"), of_old_code=1_993),
        StepPlan("mixed", 1, {Why.FAILED: 1, Why.NOT_DONE: 2}, ("1", "2", "3")),
        StepPlan("inner", 0, {Why.FOLLOWS: 1}, ("0.0",), is_open=True),
    ),
)
LINES = [
    "Resuming Fan/R1: 1,995 tasks reused, 11 tasks or more to run",
    "  start  1 reused",
    "  wide   1,993 reused, 7 to run: it failed (wide/3, wide/5, wide/8, wide/9, wide/11, ...)",
    "  mixed  1 reused, 1 to run: it failed, 2 to run: it was not done",
    "  inner  1 or more to run: what comes before it is done again",
    "  note: wide has changed since 1,993 tasks of it ran, which stand as they are; "
    "`--step wide` runs all of it again",
]


def test_a_plan_is_a_line_a_step_and_what_may_surprise() -> None:
    assert plan_lines(PLAN) == LINES


def test_a_plan_is_shown_when_it_comes_unless_all_is_to_be_quiet() -> None:
    assert Shown().tell([PLAN]).err.getvalue().splitlines() == LINES
    assert Shown(quiet=True).tell([PLAN]).err.getvalue() == ""


def test_a_plan_for_programs_says_what_is_not_exact() -> None:
    fields = plan_fields(PLAN)
    assert (fields["reused"], fields["to_run"], fields["to_run_is_exact"]) == (1_995, 11, False)
    *_, mixed, inner = fields["steps"]
    assert mixed["why"] == {"it failed": 1, "it was not done": 2}
    assert (mixed["to_run_is_exact"], inner["to_run_is_exact"]) == (True, False)
    assert inner["first_tasks"] == ["inner/0.0"]
