"""`aflow resume RUN`: a new run that reuses what another has committed."""

from typing import TYPE_CHECKING, Any

import click

from engine.cli.flow_options import FlowVerb, keep_flow, with_decorators
from engine.cli.options import Session, session
from engine.cli.run import execute, run_options
from engine.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from engine.flow.spec import FlowSpec

EXAMPLES = """
aflow resume @latest-failed
aflow resume 01JF3 --dry-run          what would be reused, what run, and why
aflow resume 01JF3 --step train       run train again, and all that follows
aflow resume flow.py 01JF3            with a flow file that has moved
"""


class ResumeVerb(FlowVerb):
    """`resume [FLOW] [RUN]`: the flow is the run's own unless a file is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super(FlowVerb, self).parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", "[FLOW]", "[RUN]"]


def _resume(
    words: tuple[str, ...],
    step: str | None,
    origin_run_id: str | None,
    dry_run: bool,
    **values: Any,
) -> int:  # Any: click's values
    from engine.worker.loader import load

    now = session()
    target, run, step = _meant(list(words), step, origin_run_id, now)
    bound = now.flow_class
    if bound is None and target is not None:
        bound = load(target)
    flow_name, run_id, its_target = _origin(run, now, bound.__name__ if bound else None)
    if bound is None:
        if its_target is None:
            raise UsageError(
                f"run {flow_name}/{run_id} does not say which file its flow is in",
                hint=f"aflow resume FILE.py {run_id}",
            )
        bound = load(its_target)
    keep_flow(bound)
    if dry_run:
        return _tell(bound, run_id, step, with_decorators(values["decorators"]))
    return execute(values, resume=run_id, resume_step=step)


def _tell(
    flow: "type[FlowSpec]", run_id: str, step: str | None, decorators: tuple[str, ...]
) -> int:
    """Print the plan, and do nothing."""
    import asyncio
    import json

    from engine.cli.resume_plan import plan_fields, plan_lines
    from engine.runtime import Engine
    from engine.runtime.engine import RunKeywords

    wanted: RunKeywords = {"decorators": decorators}
    if step is not None:
        wanted["resume_step"] = step
    now = session()
    plan = asyncio.run(Engine.plan_resume(flow, run_id, config=now.config, **wanted))
    lines = [json.dumps(plan_fields(plan))] if now.json else plan_lines(plan)
    click.echo("\n".join(lines))
    return 0


def _meant(
    words: list[str], step: str | None, origin: str | None, now: Session
) -> tuple[str | None, str | None, str | None]:
    """Tell the flow's file, the run and the step apart. Metaflow's word is the step."""
    if now.flow_class is not None:
        if len(words) > 1:
            raise UsageError(f"one step is expected, not {' '.join(words)!r}")
        return None, origin, words[0] if words else step
    target = words.pop(0) if words and _is_flow(words[0]) else None
    if len(words) > 1:
        raise UsageError(
            f"a flow's file and a run are expected, not {' '.join(words)!r}",
            hint="a step is named by --step",
        )
    return target, words[0] if words else origin, step


def _is_flow(word: str) -> bool:
    return word.endswith(".py") or ".py:" in word or (":" in word and "/" not in word)


def _origin(run: str | None, now: Session, flow: str | None) -> tuple[str, str, str | None]:
    """The run to go on from: its flow, its id, and where its flow's class is."""
    from engine.cli.references import find_run
    from engine.client.reader import Reader

    with Reader.open(now.config) as reader:
        record = find_run(reader, run or "@latest", flow=flow)
        if flow is not None and record.flow != flow:
            raise NotFoundError(f"run {record.run_id} is of flow {record.flow}, not {flow}")
        began = reader.began(record.flow, record.run_id)
        target = began.code.get("target") if began else None
        return record.flow, record.run_id, target


command = ResumeVerb(
    "resume",
    examples=EXAMPLES,
    json=True,
    params=[
        click.Argument(["words"], nargs=-1, required=False),
        click.Option(["--step"], help="Run this step, and all that follows, again."),
        click.Option(
            ["--origin-run-id"], metavar="RUN", help="The run to go on from. [default: @latest]"
        ),
        click.Option(
            ["--dry-run"],
            is_flag=True,
            help="Print what would be reused, what would run, and why; change nothing.",
        ),
        *run_options(),
    ],
    callback=_resume,
    help="Go on from where a run stopped: a new run that reuses what RUN has committed, with RUN's "
    "parameters. The flow is loaded from where RUN had it, unless FLOW names a file.",
)
