"""The `aflow` group: which verbs there are, and the page that introduces them.

A verb's module is imported when it is called, and for no other verb; the page needs none of them.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import click

from engine.cli.options import json_option, shared_options, write_examples
from engine.config import did_you_mean
from engine.errors import UsageError

GROUPS: Mapping[str, Mapping[str, str]] = {
    "Run": {
        "run": "Run a flow",
        "resume": "Go on from where a run stopped",
        "attach": "Take over a run that was left running in AWS Batch",
        "check": "Look for faults without running",
        "show": "Draw a flow's graph",
    },
    "Look": {
        "list": "List flows, or runs",
        "status": "Say how a run is doing",
        "logs": "Read or follow what tasks printed",
        "dump": "Read artifacts",
        "tag": "Add, remove and list a run's tags",
        "package": "List, save and describe code packages",
    },
    "Care": {
        "batch": "List and end jobs in AWS Batch",
        "config": "Show settings and where each came from",
        "doctor": "Check this machine",
        "dev": "Have S3 and AWS Batch on this machine, to try things on",
        "fsck": "Check what is stored; rebuild the list of runs",
        "du": "Say how much room flows and runs take",
        "gc": "Remove what no run needs; delete runs by rule",
        "delete": "Delete runs",
        "completion": "Print a completion script for a shell",
        "version": "Print versions",
        "help": "Read about exit codes, limits and more",
    },
}
VERBS: Mapping[str, str] = {name: text for group in GROUPS.values() for name, text in group.items()}
FLOW_VERBS = (
    *("run", "resume", "attach", "check", "show"),
    *("list", "status", "logs", "dump", "tag", "package", "version"),
)
"""The verbs of `python flow.py`."""

_EXAMPLES = """
aflow run flow.py --alpha 0.5         run a flow with a parameter
aflow logs -f @latest                 follow the latest run
aflow dump @latest/train/0/model      read an artifact
aflow resume @latest-failed           go on from the first failure
"""


class Commands(click.Group):
    """A group whose verbs are imported when called."""

    def __init__(
        self, *, verbs: Mapping[str, str], examples: str = _EXAMPLES, **rest: Any
    ) -> None:  # Any: click.Group's own arguments
        super().__init__(params=[*shared_options(), *rest.pop("params", ())], **rest)
        self.verbs = verbs
        self.examples = examples

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load_verb(cmd_name) if cmd_name in self.verbs else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in self.verbs:
            return name, self.get_command(ctx, name), args[1:]
        if name.startswith("-"):
            raise click.NoSuchOption(name, ctx=ctx)
        close = did_you_mean(name, self.verbs)
        if name.endswith(".py"):
            hint = f"did you mean `{ctx.info_name} run {name}`?"
        elif close:
            hint = f"did you mean `{ctx.info_name} {close}`?"
        else:
            hint = f"`{ctx.info_name} --help` lists the commands"
        raise UsageError(f"there is no command {name!r}", hint=hint)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_help_text(ctx, formatter)
        self.format_usage(ctx, formatter)
        write_examples(self.examples, formatter)
        for title, verbs in GROUPS.items():
            shown = [(name, text) for name, text in verbs.items() if name in self.verbs]
            if shown:
                with formatter.section(title):
                    formatter.write_dl(shown)
        self.format_options(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text(f"`{ctx.info_name} COMMAND --help` says more of a command.")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = [r for p in self.get_params(ctx) if (r := p.get_help_record(ctx))]
        with formatter.section("Options"):
            formatter.write_dl(records)


def load_verb(name: str) -> click.Command:
    """Import one verb: module `engine.cli.<name>`, attribute `command`."""
    found = importlib.import_module(f"engine.cli.{name}").command
    if not isinstance(found, click.Command):
        raise TypeError(f"engine.cli.{name}.command is no command")
    return found


def group() -> Commands:
    """The group of `aflow`."""
    return Commands(
        name="aflow",
        verbs=VERBS,
        help="aflow runs data-science flows, from a laptop to the cloud.",
        params=[
            click.Option(["--version"], is_flag=True, help="Print the version."),
            json_option(),
        ],
        callback=_ignore_version,
    )


def _ignore_version(version: bool) -> None:
    """`--version` is answered before click is imported; the option is here for `--help`."""
