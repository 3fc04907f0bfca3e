"""Decorators from the command line: `--with retry:times=3`, attached to every step that lacks it.

Attaching makes a mapping and leaves the user's class as it is.
"""

import json
from collections.abc import Iterable, Mapping

from engine import plugins
from engine.errors import EngineError, UsageError
from engine.flow.decorators import BUILT_IN
from engine.flow.decorators.base import StepDecorator, mark_of
from engine.flow.spec import FlowSpec, steps_of
from engine.flow.words import did_you_mean, listed

PLUGIN_GROUP = "aflow.decorators"

Decorators = Mapping[str, tuple[StepDecorator, ...]]
"""The decorators of each step, by its name, outermost first."""

_BUILT_IN = {kind.name: kind for kind in BUILT_IN}
_OPEN, _CLOSE = "([{", ")]}"


def parse_spec(text: str) -> StepDecorator:
    """Read "name" or "name:field=value,field=value"; values are JSON, or text where they are not.

    Raises:
        UsageError: no decorator has this name, or it does not take these fields.
    """
    name, _, rest = text.strip().partition(":")
    kind = _kind(name)
    fields: dict[str, object] = {}
    for part in _split(rest):
        field, equals, value = part.partition("=")
        if not equals or not field.strip().isidentifier():
            raise UsageError(
                f"--with {text}: {part.strip()!r} is not FIELD=VALUE",
                hint=f"for example: --with {name}:{_example(kind)}",
            )
        fields[field.strip()] = _value(value.strip())
    known = _fields(kind)
    unknown = [f for f in fields if f not in known]
    if unknown:
        raise UsageError(
            f"--with {text}: @{name} has no attribute {listed(map(repr, unknown))}",
            hint=did_you_mean(unknown[0], known) or f"it has {listed(known)}",
        )
    try:
        return kind(**fields)
    except EngineError as error:
        raise UsageError(f"--with {text}: {error.message}", hint=error.hint) from error


def decorators_of(cls: type[FlowSpec], extra: Decorators | None = None) -> Decorators:
    """The decorators of each step: those of the source, and before them those of `extra`."""
    found: dict[str, tuple[StepDecorator, ...]] = {}
    for name, function in steps_of(cls).items():
        mark = mark_of(function)
        own = mark.decorators if mark else ()
        added = extra.get(name, ()) if extra else ()
        have = {d.name for d in own}
        found[name] = (*(d for d in added if d.name not in have), *own)
    return found


def attach(cls: type[FlowSpec], specs: Iterable[str | StepDecorator]) -> Decorators:
    """The decorators of each step once `specs` are added to every step that lacks them.

    What the source says wins over `specs`; of two specs of one name the later wins.

    Raises:
        UsageError: a spec cannot be read.
    """
    chosen: dict[str, StepDecorator] = {}
    for spec in specs:
        decorator = parse_spec(spec) if isinstance(spec, str) else spec
        chosen[decorator.name] = decorator
    added = tuple(chosen.values())
    return decorators_of(cls, dict.fromkeys(steps_of(cls), added))


def _kind(name: str) -> type[StepDecorator]:
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    known = [*_BUILT_IN, *plugins.names(PLUGIN_GROUP)]
    if name not in known:
        raise UsageError(
            f"there is no decorator {name!r}",
            hint=did_you_mean(name, known) or f"there are {listed(known)}",
        )
    kind: type[StepDecorator] = plugins.load(PLUGIN_GROUP, name)
    return kind


def _split(text: str) -> list[str]:
    """Cut at the commas that stand outside of quotes and brackets."""
    parts, depth, quote, begin = [], 0, "", 0
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote and text[i - 1] != "\\" else quote
        elif character in "\"'":
            quote = character
        elif character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[begin:i])
            begin = i + 1
    return [p for p in (*parts, text[begin:]) if p.strip()]


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        words = {"True": True, "False": False, "None": None}  # Python's words are meant so, too
        return words.get(text, text)


def _fields(kind: type[StepDecorator]) -> list[str]:
    return list(kind.__struct_fields__)


def _example(kind: type[StepDecorator]) -> str:
    return f"{next(iter(_fields(kind)), 'NAME')}=VALUE"
