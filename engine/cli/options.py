"""What every verb shares: the options that choose settings, and the session that carries them.

A shared option may stand before the verb or after it; what comes last counts. Settings are read
when a verb asks for them, so `--help` opens no file.
"""

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click
from msgspec import Struct, field

from engine.config import Config, Search, load, terminal


class Session(Struct):
    """One call of the command line. `flow_class` is set by `python flow.py ...`."""

    flags: dict[str, object] = field(default_factory=dict)
    config_file: str | None = None
    profile: str | None = None
    no_config: bool = False
    debug: bool = False
    json: bool = False
    decorators: tuple[str, ...] = ()  # of `--with` before the verb, as Metaflow has it
    quiet: bool = False
    flow_class: Any = None  # Any: a FlowSpec subclass; the help page does not import the language
    loaded: Config | None = None

    @property
    def config(self) -> Config:
        """The settings, read once.

        Raises:
            ConfigError: a file, a variable or a flag does not fit.
        """
        if self.loaded is None:
            search = Search(
                config_file=self.config_file, profile=self.profile, no_config=self.no_config
            )
            self.loaded = load(self.flags, search=search)
        return self.loaded

    @property
    def flow_name(self) -> str | None:
        """The flow that `python flow.py` is bound to."""
        return self.flow_class.__name__ if self.flow_class else None

    def color(self, *, stderr: bool = False) -> bool:
        stream = sys.stderr if stderr else sys.stdout
        return terminal(self.config, is_tty=stream.isatty()).color


def session() -> Session:
    """The session of the command that is running."""
    found = click.get_current_context().find_object(Session)
    if found is None:
        raise RuntimeError("no command is running")
    return found


def _flag(name: str) -> Callable[[click.Context, click.Parameter, object], None]:
    def keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
        found = ctx.find_object(Session)
        if value is not None and found is not None:
            found.flags[name] = value

    return keep


def _attribute(ctx: click.Context, param: click.Parameter, value: object) -> None:
    found = ctx.find_object(Session)
    if value and found is not None and param.name:
        setattr(found, param.name, value)


def shared_options() -> list[click.Option]:
    """The options of every verb, new for each: a click parameter belongs to one command."""
    flag: Mapping[str, Any] = {"expose_value": False, "is_eager": True}  # Any: click's arguments
    return [
        click.Option(
            ["--datastore", "datastore"],
            metavar="DIR|URL",
            callback=_flag("datastore"),
            help="Where runs are kept.",
            **flag,
        ),
        click.Option(
            ["--metadata", "metadata"],
            metavar="WHERE",
            callback=_flag("metadata"),
            help="Where runs are listed.",
            **flag,
        ),
        click.Option(
            ["--profile"], callback=_attribute, help="Settings of [profile.NAME].", **flag
        ),
        click.Option(
            ["--config-file"],
            metavar="FILE",
            callback=_attribute,
            help="Read settings from FILE only.",
            **flag,
        ),
        click.Option(
            ["--no-config"],
            is_flag=True,
            callback=_attribute,
            help="Read no settings files.",
            **flag,
        ),
        click.Option(
            ["--color"],
            type=click.Choice(["auto", "always", "never"]),
            callback=_flag("color"),
            help="Whether to colour.",
            **flag,
        ),
        click.Option(
            ["--no-color", "color_off"], is_flag=True, callback=_no_color, hidden=True, **flag
        ),
        click.Option(
            ["--debug"], is_flag=True, callback=_attribute, help="Show tracebacks.", **flag
        ),
    ]


def _no_color(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value:
        _flag("color")(ctx, param, "never")


def package_suffixes_option() -> click.Option:
    return click.Option(
        ["--package-suffixes"],
        metavar="LIST",
        expose_value=False,
        callback=_flag("package_suffixes"),
        help="The ends of the names that are code, or none. [default: .py,.R,.RDS]",
    )


def json_option() -> click.Option:
    return click.Option(
        ["--json"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_attribute,
        help="Print JSON, for programs.",
    )


class Verb(click.Command):
    """A command with the shared options, examples at the top of its help, and `-1` as a run."""

    def __init__(
        self,
        name: str | None,
        *,
        examples: str = "",
        json: bool = False,
        **rest: Any,  # Any: click.Command's own arguments
    ) -> None:
        super().__init__(name, **rest)
        self.examples = examples
        self.engine_params = [*([json_option()] if json else []), *shared_options()]
        self.own_params = list(self.params)
        self.params = [*self.params, *self.engine_params]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, protect_run_numbers(self, args))

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        write_examples(self.examples, formatter)
        for title, params in self.sections(ctx):
            records = [record for param in params if (record := param.get_help_record(ctx))]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def sections(self, ctx: click.Context) -> list[tuple[str, list[click.Parameter]]]:
        """The options by heading."""
        shared = {id(param) for param in self.engine_params}
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        return [
            ("Options", [p for p in options if id(p) not in shared]),
            ("Options of every command", [p for p in options if id(p) in shared]),
        ]


def verb(
    name: str, *, examples: str = "", json: bool = False, **rest: Any
) -> Callable[[Callable[..., Any]], Verb]:  # Any: click's arguments; a callback's own signature
    """Make a function a verb; its docstring is the help."""

    def decorate(function: Callable[..., Any]) -> Verb:
        params = list(reversed(getattr(function, "__click_params__", [])))
        help_text = (function.__doc__ or "").strip()
        return Verb(
            name,
            examples=examples,
            json=json,
            params=params,
            callback=function,
            help=help_text,
            **rest,
        )

    return decorate


def write_examples(examples: str, formatter: click.HelpFormatter) -> None:
    if examples:
        with formatter.section("Examples"):
            for line in examples.strip().splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")


_RUN_NUMBER = re.compile(r"-\d+(/.*)?\Z")


def protect_run_numbers(command: click.Command, args: list[str]) -> list[str]:
    """Turn `-1` where a run is expected into `@-1`, so that it is not taken for an option."""
    takes_value = {
        name
        for param in command.params
        if isinstance(param, click.Option) and not (param.is_flag or param.count)
        for name in (*param.opts, *param.secondary_opts)
    }
    done: list[str] = []
    for position, arg in enumerate(args):
        before = args[position - 1] if position else ""
        is_run = _RUN_NUMBER.match(arg) and before not in takes_value and "--" not in done
        done.append(f"@{arg}" if is_run else arg)
    return done
