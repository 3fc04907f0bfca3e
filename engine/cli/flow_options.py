"""Commands that take a flow: its file comes first, and its parameters become options.

So the command line is read in two passes: the first finds the file among the options that are known
without it, the second knows the flow's own.
"""

from typing import TYPE_CHECKING, Any

import click

from engine.cli.options import Session, Verb, session
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.flow.parameters import Parameter
    from engine.flow.spec import FlowSpec

PREFIX = "parameter:"
"""Marks the click parameters that are the flow's."""

_META_KEY = "engine.flow"


class FlowVerb(Verb):
    """A verb of a flow: `aflow VERB FLOW ...`, or `python flow.py VERB ...`."""

    takes_parameters = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # A verb is one object for the whole process: it forgets the flow of an earlier call.
        self.params = [*self.own_params, *self.engine_params]
        bound = ctx.find_object(Session)
        if bound is not None and bound.flow_class is not None:
            ctx.meta[_META_KEY] = bound.flow_class
        else:
            target, args = self._take_target(ctx, args)
            if target is not None:
                from engine.worker.loader import load

                ctx.meta[_META_KEY] = load(target)
        if self.takes_parameters and _META_KEY in ctx.meta:
            self.params = [*self._other_params(ctx), *_options(ctx.meta[_META_KEY])]
        return super().parse_args(ctx, args)

    def _take_target(self, ctx: click.Context, args: list[str]) -> tuple[str | None, list[str]]:
        """The first word that is neither an option nor the value of one, and the rest."""
        with_value, flags = _known(self.get_params(ctx))
        position = 0
        while position < len(args):
            word = args[position]
            name = word.partition("=")[0]
            if not word.startswith("-") or word == "-":
                return word, [*args[:position], *args[position + 1 :]]
            if name in with_value and "=" not in word:
                position += 1
            elif name not in with_value and name not in flags:
                raise _unknown_before_flow(ctx, name, [*with_value, *flags])
            position += 1
        if any(word in ctx.help_option_names for word in args):
            return None, args
        raise UsageError(
            "no flow is named", hint=f"`{ctx.command_path} flow.py`; a file, or module:Flow"
        )

    def sections(self, ctx: click.Context) -> list[tuple[str, list[click.Parameter]]]:
        """The flow's parameters come first."""
        sections = super().sections(ctx)
        if _META_KEY not in ctx.meta:
            return sections
        own = [p for p in self.get_params(ctx) if (p.name or "").startswith(PREFIX)]
        rest = [(title, [p for p in params if p not in own]) for title, params in sections]
        return [(f"Parameters of {ctx.meta[_META_KEY].__name__}", own), *rest]

    def _other_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Our options, but for those whose names the flow's parameters take."""
        from engine.flow.parameters import normal, parameters_of

        taken = {normal(p.name) for p in parameters_of(ctx.meta[_META_KEY]).values()}
        ours = [*self.own_params, *self.engine_params]
        return [p for p in ours if not any(normal(o.lstrip("-")) in taken for o in p.opts)]

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        pieces = super().collect_usage_pieces(ctx)
        bound = ctx.find_object(Session)
        if bound is not None and bound.flow_class is not None:
            return pieces
        return ["FLOW", *pieces]


class RunVerb(FlowVerb):
    """A verb whose flow's parameters are options."""

    takes_parameters = True


def flow_of_command() -> "type[FlowSpec]":
    """The flow of the command that is running."""
    found: type[FlowSpec] = click.get_current_context().meta[_META_KEY]
    return found


def parameters_given(values: dict[str, Any]) -> dict[str, str]:  # Any: click's values
    """The flow's parameters among the values of a command, by name."""
    return {
        name.removeprefix(PREFIX): text
        for name, text in values.items()
        if name.startswith(PREFIX) and text is not None
    }


def _known(params: list[click.Parameter]) -> tuple[set[str], set[str]]:
    with_value: set[str] = set()
    flags: set[str] = set()
    for param in params:
        if isinstance(param, click.Option):
            names = {*param.opts, *param.secondary_opts}
            (flags if param.is_flag or param.count else with_value).update(names)
    return with_value, flags


def _unknown_before_flow(ctx: click.Context, name: str, known: list[str]) -> UsageError:
    from engine.config import did_you_mean

    close = did_you_mean(name.lstrip("-"), [known_name.lstrip("-") for known_name in known])
    close = close and f"--{close}"
    where = "the flow's own options come after its file"
    hint = f"did you mean {close}? Otherwise, {where}" if close else where
    return UsageError(f"{ctx.command_path} has no option {name!r}", hint=hint)


def _options(flow: "type[FlowSpec]") -> list[click.Option]:
    from engine.flow.parameters import parameters_of

    return [_option(parameter) for parameter in parameters_of(flow).values()]


def _option(parameter: "Parameter") -> click.Option:
    """A parameter as an option. Its text is read by the flow language, so it is text to click."""
    names = dict.fromkeys(
        f"--{spelling}"
        for name in (parameter.name, parameter.name.lower())
        for spelling in (name, name.replace("_", "-"), name.replace("-", "_"))
    )
    option = click.Option(
        [*names],
        metavar=parameter.type_name.upper(),
        help=_help(parameter),
    )
    option.name = f"{PREFIX}{parameter.name}"  # click would only take an identifier
    return option


def _help(parameter: "Parameter") -> str:
    notes: list[str] = []
    if parameter.required:
        notes.append("required")
    elif parameter.show_default and parameter.default is not None:
        shown = "computed" if callable(parameter.default) else repr(parameter.default)
        notes.append(f"default: {shown}")
    if parameter.separator:
        notes.append(f"a list, separated by {parameter.separator!r}")
    note = f"[{'; '.join(notes)}]" if notes else ""
    return f"{parameter.help or ''}  {note}".strip()


def with_decorators(values: tuple[str, ...]) -> tuple[str, ...]:
    """The `--with` specs given before the verb and after it."""
    return (*session().decorators, *values)


def keep_flow(flow: "type[FlowSpec]") -> None:
    """Make `flow` the flow of the command that is running."""
    click.get_current_context().meta[_META_KEY] = flow
