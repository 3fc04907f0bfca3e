"""`aflow run FLOW`."""

from pathlib import Path
from typing import Any

import click

from engine.cli.flow_options import RunVerb, flow_of_command, parameters_given, with_decorators
from engine.cli.options import package_suffixes_option, session

EXAMPLES = """
aflow run flow.py
aflow run flow.py --alpha 0.5 --max-workers 8
aflow run flows.py:TrainFlow --tag nightly --with retry:times=3
aflow run flow.py --json | jq 'select(.event == "result")'
"""


def run_options() -> list[click.Option]:
    """The options that `run` and `resume` share."""
    return [
        click.Option(
            ["--max-workers"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Tasks at once. [default: cores]",
        ),
        click.Option(
            ["--max-num-splits"],
            type=click.IntRange(min=1),
            metavar="N",
            help="The widest foreach allowed. [default: 1,000,000]",
        ),
        click.Option(["--tag", "tags"], multiple=True, help="Tag the run. May be repeated."),
        click.Option(
            ["--with", "decorators"],
            multiple=True,
            metavar="SPEC",
            help="Decorate every step: retry:times=3. May be repeated.",
        ),
        click.Option(
            ["--on-failure"],
            type=click.Choice(["finish", "cancel"]),
            help="What running tasks do when one failed. [default: finish]",
        ),
        click.Option(
            ["--isolation"],
            type=click.Choice(["fork", "spawn"]),
            help="How a task gets its process. [default: fork]",
        ),
        package_suffixes_option(),
        detach_option(),
        click.Option(
            ["--run-id-file"],
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write the run's id to this file first.",
        ),
        click.Option(
            ["--quiet", "-q"], is_flag=True, help="Show only what tasks print, and errors."
        ),
    ]


def detach_option() -> click.Option:
    return click.Option(
        ["--detach"],
        is_flag=True,
        help="Ctrl-C leaves the jobs in AWS Batch running, for `aflow attach`.",
    )


def execute(values: dict[str, Any], **resume: str | None) -> int:  # Any: click's values
    """Run the flow of this command with click's values."""
    from engine.cli.running import run

    now = session()
    now.quiet = now.quiet or values["quiet"]
    options = {
        "parameters": parameters_given(values),
        "max_workers": values["max_workers"],
        "max_num_splits": values["max_num_splits"],
        "tags": tuple(values["tags"]),
        "decorators": with_decorators(values["decorators"]),
        "on_failure": values["on_failure"],
        "isolation": values["isolation"],
        "run_id_file": values["run_id_file"],
        "detach": values["detach"],
        **resume,
    }
    return run(flow_of_command(), options, now)


def _run(**values: Any) -> int:  # Any: click's values
    return execute(values)


command = RunVerb(
    "run",
    examples=EXAMPLES,
    json=True,
    params=run_options(),
    callback=_run,
    help="Run a flow. FLOW is a file, file.py:Flow or package.module:Flow; its parameters are "
    "options that follow it.",
)
