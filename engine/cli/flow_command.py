"""`python flow.py run|show|check|...`: the same verbs, bound to the flow of the file.

`FlowSpec.__init__` calls `main` when the file is the program. With no verb the flow is checked and
its commands are listed, as Metaflow does.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from engine.cli.commands import FLOW_VERBS, VERBS, Commands
from engine.cli.main import be_tolerant_of_text, invoke, leave
from engine.cli.options import Session, json_option

if TYPE_CHECKING:
    from engine.flow.spec import FlowSpec

_METAFLOW_FLAGS = ("--pylint", "--no-pylint")


def main(cls: "type[FlowSpec]") -> NoReturn:
    """Run the command line of a flow's file and exit."""
    from engine.worker.loader import adopt_main

    be_tolerant_of_text()
    adopt_main()
    code = call(cls, sys.argv[1:], program=Path(sys.argv[0]).name)
    if "obstore" in sys.modules:
        leave(code)
    sys.exit(code)  # a user's `finally` still runs


def call(cls: "type[FlowSpec]", args: list[str], *, program: str) -> int:
    """Call a verb for the flow and return the exit code."""
    session = Session(flow_class=cls)
    return invoke(list(_ours(args)) or ["check"], group=_group(cls, program), session=session)


def _group(cls: "type[FlowSpec]", program: str) -> Commands:
    doc = (cls.__doc__ or "").strip().partition("\n\n")[0]
    return Commands(
        name=f"python {program}",
        verbs={name: VERBS[name] for name in FLOW_VERBS},
        examples=f"python {program} run\npython {program} run --help\npython {program} resume",
        help=f"{cls.__name__}: {doc}" if doc else f"{cls.__name__}, a flow.",
        params=[
            json_option(),
            click.Option(
                ["--with", "decorators"],
                multiple=True,
                metavar="SPEC",
                help="Decorate every step: retry:times=3. May be repeated.",
            ),
            click.Option(["--quiet/--not-quiet"], help="Show only what tasks print, and errors."),
        ],
        callback=_keep,
    )


def _keep(decorators: tuple[str, ...], quiet: bool) -> None:
    found = click.get_current_context().find_object(Session)
    if found is not None:
        found.decorators, found.quiet = decorators, quiet


def _ours(args: list[str]) -> Iterable[str]:
    """The words that mean something here, in our spelling: Metaflow's `logs show` is `logs`."""
    kept = [word for word in args if word not in _METAFLOW_FLAGS]
    for position, word in enumerate(kept):
        if not (word == "show" and position and kept[position - 1] == "logs"):
            yield word
