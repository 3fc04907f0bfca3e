"""Parameters: what a run is told at its start. Declared in the class, the same in every task.

`resolve` turns what was given, the environment and the defaults into values; it reads neither by
itself.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import FunctionType, ModuleType
from typing import Any, overload

from engine.errors import EngineError, ParameterError
from engine.flow.decorators.base import caller, is_step, place
from engine.flow.spec import FlowSpec, is_bound, load_artifact
from engine.flow.words import closest, listed

ENVIRONMENT_PREFIX = "AFLOW_PARAMETER_"
VALUE_MAX_BYTES = 2**20
JSON_DEPTH_MAX = 64

RESERVED_NAMES = frozenset(
    (
        *("help", "with", "tag", "tags", "namespace", "user-namespace"),
        *("run-id", "task-id", "run-id-file", "runner-attribute-file", "max-workers"),
        *("max-num-splits", "max-log-size", "params", "decospecs", "obj"),
    )
)
"""Names that options of the command line have, in Metaflow or here."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,127}\Z")
_WORDS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}


class JSONTypeClass:
    """The type of a parameter whose value is given as JSON text; see `JSONType`."""

    name = "JSON"

    def __repr__(self) -> str:
        return "JSON"


JSONType = JSONTypeClass()
_TYPES: tuple[object, ...] = (str, int, float, bool, JSONType)


def _to_stderr(message: object) -> None:
    sys.stderr.write(f"{message}\n")


@dataclass(frozen=True)
class ParameterContext:
    """What a callable default is told. `ds_type` names the kind of datastore."""

    flow_name: str = ""
    user_name: str = ""
    parameter_name: str = ""
    logger: Callable[[object], None] = _to_stderr
    ds_type: str = "local"
    configs: Mapping[str, object] = field(default_factory=dict)


@dataclass(eq=False, repr=False)
class Parameter:
    """A value that a run is started with: `alpha = Parameter("alpha", default=0.1)`.

    Args:
        name: as on the command line, `--name`; case and `-` or `_` make no difference there.
        default: the value, or a function of a ParameterContext that is called once, at the start.
        type: str, int, float, bool or JSONType; inferred from the default, else str.
        help: a line for `--help`.
        required: whether a run must be given it.
        show_default: whether `--help` tells the default.
        separator: cuts the text into a list of texts.
    """

    name: str
    default: Any = None  # Any: of the parameter's type, or a function that makes one
    type: Any = None  # Any: a class of `_TYPES`, or JSONType; whatever was given, until checked
    help: str | None = None
    required: bool | None = None
    show_default: bool = True
    separator: str | None = None
    attribute: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._place = caller()
        if self.type is None:
            self.type = self._inferred()

    def _inferred(self) -> object:
        if self.default is None or self.separator is not None or callable(self.default):
            return str
        kind = type_of(self.default)
        return kind if kind in _TYPES else JSONType

    def __set_name__(self, owner: type, name: str) -> None:
        self.attribute = self.attribute or name

    @overload
    def __get__(self, flow: None, owner: type) -> "Parameter": ...
    @overload
    def __get__(self, flow: FlowSpec, owner: type) -> Any: ...  # Any: its value
    def __get__(self, flow: FlowSpec | None, owner: type) -> Any:
        if flow is None or not is_bound(flow):
            return self
        return load_artifact(flow, self.attribute)

    def __repr__(self) -> str:
        return f"Parameter({self.name!r})"

    @property
    def where(self) -> str:
        """ "file:line  source" of the declaration."""
        return place(*self._place)

    @property
    def type_name(self) -> str:
        """The type in a word."""
        return "JSON" if self.type is JSONType else getattr(self.type, "__name__", str(self.type))

    def faults(self) -> list[str]:
        """What is wrong with the declaration; nothing, as a rule."""
        found = []
        if not isinstance(self.name, str) or not _NAME.match(self.name):
            found.append(f"parameter name {self.name!r} is not letters, digits, `-` and `_`")
        elif normal(self.name) in {normal(n) for n in RESERVED_NAMES}:
            found.append(f"parameter name {self.name!r} is reserved")
        if self.type not in _TYPES:
            found.append(
                f"parameter {self.name!r} has type {self.type_name}; "
                "it can be str, int, float, bool or JSONType"
            )
        elif self.separator is not None and self.type is not str:
            found.append(f"parameter {self.name!r} has a separator, but is {self.type_name}")
        elif self.default is not None and not callable(self.default):
            try:
                self.convert(self.default)
            except ParameterError as error:
                found.append(f"the default of {error.message}")
        return found

    def convert(self, value: object) -> Any:  # Any: of the parameter's type
        """The value that was meant by a text, or by a value of the right type already.

        Raises:
            ParameterError: it is no such value.
        """
        if isinstance(value, str):
            if len(value.encode(errors="surrogateescape")) > VALUE_MAX_BYTES:
                raise self._error(f"is longer than {VALUE_MAX_BYTES:,} bytes")
            return self._parse(value)
        if self.type is JSONType:
            return self._plain(value)
        if self.separator is not None and isinstance(value, list | tuple):
            return [str(v) for v in value]
        if self.type is float and type_of(value) in (int, float):
            return float(value)  # type: ignore[arg-type]  # one of the two
        if type_of(value) is not self.type:
            raise self._wrong(value)
        return value

    def _parse(self, text: str) -> Any:  # Any: of the parameter's type
        if self.type is str:
            return text.split(self.separator) if self.separator and text else text
        if self.type is JSONType:
            return self._json(text)
        if self.type is bool:
            if text.strip().lower() not in _WORDS:
                raise self._wrong(text)
            return _WORDS[text.strip().lower()]
        try:
            return int(text) if self.type is int else float(text)
        except ValueError:
            raise self._wrong(text) from None

    def _json(self, text: str) -> Any:  # Any: what JSON can say
        try:
            return self._shallow(json.loads(text))
        except json.JSONDecodeError as error:
            near = text[max(0, error.pos - 10) : error.pos + 10]
            raise self._error(
                f"must be JSON: {error.msg} at line {error.lineno}, column {error.colno}, "
                f"near {near!r}"
            ) from None
        except (RecursionError, ValueError) as error:
            raise self._error(f"must be JSON: {error}") from None

    def _plain(self, value: object) -> object:
        try:
            text = json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._error(f"must be what JSON can say: {error}") from None
        if len(text) > VALUE_MAX_BYTES:
            raise self._error(f"is longer than {VALUE_MAX_BYTES:,} bytes")
        return self._shallow(value)

    def _shallow(self, value: object) -> object:
        """The value, if it is not too deep for those who read it."""
        level = _containers([value])
        for _ in range(JSON_DEPTH_MAX):
            level = [below for node in level for below in _containers(node)]
        if level:
            raise self._error(f"is nested more than {JSON_DEPTH_MAX} levels deep")
        return value

    def _wrong(self, value: object) -> ParameterError:
        shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
        kind = "" if isinstance(value, str) else f", which is {type_of(value).__name__}"
        return self._error(f"must be {self.type_name}, not {shown}{kind}")

    def _error(self, problem: str) -> ParameterError:
        return ParameterError(f"parameter {self.name!r} {problem}", where=self.where)


def _containers(node: Any) -> list[Any]:  # Any: what JSON can say
    """The lists and maps directly inside a list or a map."""
    inside = node.values() if isinstance(node, dict) else node
    return [below for below in inside if isinstance(below, dict | list | tuple)]


def type_of(value: object) -> type:
    """`type(value)`, where the word `type` means something else."""
    return type(value)


def normal(name: str) -> str:
    """A parameter's name, as it is compared: in small letters, with `_` for `-`."""
    return name.lower().replace("-", "_")


def attributes_of(cls: type[FlowSpec]) -> dict[str, object]:
    """What the flow's class and its bases below FlowSpec define, by name; the nearest wins."""
    found: dict[str, object] = {}
    for base in reversed(cls.__mro__):
        if base is not FlowSpec and base is not object:
            found.update(vars(base))
    return found


def parameters_of(cls: type[FlowSpec]) -> dict[str, Parameter]:
    """The flow's parameters by attribute name, those of its bases first."""
    return {n: v for n, v in attributes_of(cls).items() if isinstance(v, Parameter)}


def constants_of(cls: type[FlowSpec]) -> dict[str, Any]:  # Any: users' values
    """The flow's class constants: public class attributes that are plain values."""
    return {n: v for n, v in attributes_of(cls).items() if not n.startswith("_") and _is_plain(v)}


def _is_plain(value: object) -> bool:
    return not (
        isinstance(value, Parameter | FunctionType | ModuleType | type)
        or is_step(value)
        or hasattr(type(value), "__get__")
    )


def environment_name(parameter: Parameter) -> str:
    """The environment variable that gives the parameter."""
    return ENVIRONMENT_PREFIX + normal(parameter.name).upper()


def resolve(
    cls: type[FlowSpec],
    given: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    context: ParameterContext | None = None,
) -> dict[str, Any]:  # Any: of each parameter's type
    """The value of each parameter, by attribute name: as given, else environment, else default.

    Args:
        cls: the flow.
        given: texts or values, by parameter name (or attribute name), in any spelling of `normal`.
        environ: environment variables.
        context: what callable defaults are told; their own names are filled in.

    Raises:
        ParameterError: the first thing that is wrong; `others` carries the rest.
    """
    parameters = parameters_of(cls)
    faults: list[ParameterError] = []
    told = _by_attribute(cls, parameters, given, faults)
    values: dict[str, Any] = {}
    context = replace(context or ParameterContext(), flow_name=cls.__name__)
    for attribute, parameter in parameters.items():
        try:
            if attribute in told:
                values[attribute] = parameter.convert(told[attribute])
            elif environment_name(parameter) in environ:
                values[attribute] = _from_environment(parameter, environ)
            else:
                values[attribute] = _default(parameter, context)
        except ParameterError as error:
            faults.append(error)
    EngineError.raise_first(faults)
    return values


def _by_attribute(
    cls: type[FlowSpec],
    parameters: Mapping[str, Parameter],
    given: Mapping[str, object],
    faults: list[ParameterError],
) -> dict[str, object]:
    known = {normal(a): a for a in parameters} | {normal(p.name): a for a, p in parameters.items()}
    told: dict[str, object] = {}
    as_given: dict[str, str] = {}
    for name, value in given.items():
        attribute = known.get(normal(name))
        if attribute is None:
            faults.append(_unknown(cls, name, [p.name for p in parameters.values()]))
        elif attribute in told:
            faults.append(
                ParameterError(
                    f"parameter {parameters[attribute].name!r} is given twice, as "
                    f"{as_given[attribute]!r} and as {name!r}",
                    hint="give it once",
                )
            )
        else:
            told[attribute], as_given[attribute] = value, name
    return told


def _unknown(cls: type[FlowSpec], name: str, known: list[str]) -> ParameterError:
    near = closest(name, known)
    if near is not None:
        hint = f"did you mean {near!r}?"
    else:
        hint = f"it has {listed(known)}" if known else "it has none"
    return ParameterError(f"flow {cls.__name__} has no parameter {name!r}", hint=hint)


def _from_environment(parameter: Parameter, environ: Mapping[str, str]) -> Any:
    variable = environment_name(parameter)
    try:
        return parameter.convert(environ[variable])
    except ParameterError as error:
        error.hint = f"the value is that of the environment variable {variable}"
        raise


def _default(parameter: Parameter, context: ParameterContext) -> Any:
    if parameter.required and parameter.default is None:
        raise ParameterError(
            f"parameter {parameter.name!r} is required",
            hint=f"give it with --{parameter.name} or {environment_name(parameter)}",
            where=parameter.where,
        )
    value = parameter.default
    if callable(value):
        try:
            value = value(replace(context, parameter_name=parameter.name))
        except Exception as error:  # the user's code may raise anything
            raise ParameterError(
                f"the default of parameter {parameter.name!r} raised "
                f"{type(error).__name__}: {error}",
                where=parameter.where,
            ) from error
    return None if value is None else parameter.convert(value)
