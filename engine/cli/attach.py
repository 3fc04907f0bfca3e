"""`aflow attach RUN`: take over a run whose driver has left its jobs running in AWS Batch."""

from typing import TYPE_CHECKING, Any

import click

from engine.cli.flow_options import keep_flow
from engine.cli.options import session
from engine.cli.resume import ResumeVerb
from engine.cli.run import detach_option, execute
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.client.reader import Reader
    from engine.scheduler.journal import RunBeganRecord
    from engine.stores.metadata.base import RunRecord

EXAMPLES = """
aflow attach 01JF3
aflow attach @latest --detach       and leave it again with Ctrl-C
"""


class AttachVerb(ResumeVerb):
    """`attach [RUN]`: the flow is the run's own."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", "[RUN]"]


def _attach(run: str, max_workers: int | None, detach: bool, quiet: bool) -> int:
    from engine.cli.references import find_run
    from engine.client.reader import Reader
    from engine.worker.loader import load

    now = session()
    with Reader.open(now.config) as reader:
        record = find_run(reader, run, flow=now.flow_name)
        status = reader.status(record)
        heir = _heir(reader, record)
        began = reader.began(record.flow, record.run_id)
    _check(record, status, heir)
    target = began.code.get("target") if began else None
    if now.flow_class is not None:
        keep_flow(now.flow_class)
    elif target is not None:
        keep_flow(load(target))
    else:
        raise UsageError(
            f"run {record.flow}/{record.run_id} does not say which file its flow is in",
            hint=f"aflow resume FILE.py {record.run_id}",
        )
    values = {**_as_begun(began), "detach": detach, "quiet": quiet}
    if max_workers is not None:
        values["max_workers"] = max_workers
    return execute(values, resume=record.run_id, resume_step=None)


def _heir(reader: "Reader", record: "RunRecord") -> "RunRecord | None":
    """The run that goes on from this one and has not ended, if there is one: the latest."""
    for run in reader.runs(record.flow, since_us=record.created_us):
        is_heir = run.origin_run_id == record.run_id
        if is_heir and reader.status(run) in ("running", "interrupted"):
            return run
    return None


def _check(record: "RunRecord", status: str, heir: "RunRecord | None") -> None:
    """Refuse what has a driver, or has nothing left to be driven, or was taken over.

    Raises:
        UsageError: it is so.
    """
    name = f"{record.flow}/{record.run_id}"
    if status == "running":
        raise UsageError(
            f"run {name} has a driver, on {record.host}",
            hint=f"`aflow logs -f {record.run_id}` follows it",
        )
    if status != "interrupted":
        raise UsageError(
            f"run {name} has ended: it {status}",
            hint=f"`aflow resume {record.run_id}` starts a run that reuses what it has done",
        )
    if heir is not None:
        raise UsageError(
            f"run {name} goes on as run {heir.flow}/{heir.run_id}",
            hint=f"`aflow attach {heir.run_id}`, if that one has no driver",
        )


def _as_begun(began: "RunBeganRecord | None") -> dict[str, Any]:  # Any: as click's values
    """The options that the run was started with: jobs are taken over if theirs are equal."""
    return {
        "max_workers": began.slots if began else None,
        "max_num_splits": None,
        "tags": began.tags if began else (),
        "decorators": tuple(began.code.get("with", ())) if began else (),
        "on_failure": began.on_failure if began else None,
        "isolation": None,
        "run_id_file": None,
    }


command = AttachVerb(
    "attach",
    examples=EXAMPLES,
    json=True,
    params=[
        click.Argument(["run"], required=False, default="@latest"),
        click.Option(
            ["--max-workers"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Tasks at once. [default: as the run was started with]",
        ),
        detach_option(),
        click.Option(
            ["--quiet", "-q"], is_flag=True, help="Show only what tasks print, and errors."
        ),
    ],
    callback=_attach,
    help="Go on with a run whose driver has left it: by --detach, or by dying. A new run takes "
    "over the jobs that it left running in AWS Batch and what it has committed, with its "
    "parameters and options, and goes on to the end. [default: @latest]",
)
