"""FlowSpec and @step: what users subclass, and what a running task sees as `self`.

Pure: a flow is bound to its task by the worker (`_bind`), and asks the binding for everything it
reads. An artifact is loaded when it is first touched; at the end the worker asks what was touched.
"""

import importlib
import operator
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar, overload

from msgspec import Struct, field

from engine.errors import FlowError
from engine.flow.decorators.base import StepMark, is_step, mark_of, set_mark
from engine.flow.merge import merged
from engine.flow.words import did_you_mean, listed
from engine.ids import Frame

F = TypeVar("F", bound=Callable[..., Any])  # Any: a step takes (self) or (self, inputs)

_IMMUTABLE = (type(None), bool, int, float, complex, str, bytes)


class ArtifactSource(Protocol):
    """Where a task's artifacts come from: one manifest, or several overlaid."""

    def names(self) -> Collection[str]: ...

    def load(self, name: str) -> Any:  # Any: users' values
        """Raises KeyError when there is no artifact of that name."""
        ...

    def sha(self, name: str) -> str:
        """The digest of the serialized value, without loading it. Raises KeyError."""
        ...


class TaskBinding(Struct, frozen=True):
    """Everything a flow object needs to be a task.

    `frames` are the splits open around the task, outermost first; `item(level)` loads the item of
    the level-th foreach frame (0 is the outermost). `constants` names the parameters and class
    constants: read-only. `source` of a join holds these alone; of any other step, the parent's
    artifacts.
    """

    source: ArtifactSource
    frames: tuple[Frame, ...]
    item: Callable[[int], Any]  # Any: users' values
    constants: frozenset[str]
    step: str
    is_join: bool = False


class _State(Struct):
    """What happened to the artifacts of one bound flow. `transition`: targets, foreach name."""

    binding: TaskBinding
    loaded: dict[str, Any] = field(default_factory=dict)  # Any: users' values
    dropped: set[str] = field(default_factory=set)
    carried: dict[str, ArtifactSource] = field(default_factory=dict)
    transition: tuple[tuple[str, ...], str | None] | None = None
    num_parallel: int | None = None
    items: dict[int, Any] = field(default_factory=dict)  # Any: users' values


@overload
def step(function: F, /) -> F: ...
@overload
def step(*, start: bool = False, end: bool = False) -> Callable[[F], F]: ...
def step(
    function: F | None = None, /, *, start: bool = False, end: bool = False
) -> F | Callable[[F], F]:
    """Mark a method as a step. `start` or `end` make it the first or the last, whatever its name.

    A step takes `self`; a join takes `self` and `inputs`. Its last statement is `self.next(...)`.
    """

    def mark(function: F) -> F:
        before = mark_of(function) or StepMark()
        return set_mark(function, StepMark(True, start, end, before.decorators))

    return mark if function is None else mark(function)


class _FlowName:
    """`flow.name`: the class's name. Not a data descriptor, so a step may have a `self.name`."""

    def __get__(self, flow: object, owner: type) -> Any:  # Any: users' values
        if isinstance(flow, FlowSpec) and is_bound(flow):
            state = _state(flow, "self.name")
            if _source_of(state, "name") is not None:
                return load_artifact(flow, "name")  # an earlier step has its own
        return owner.__name__


class FlowSpec:
    """A flow: subclass it, mark its steps with `@step`, end each with `self.next(...)`.

    Instantiating it in the program that was started (`python flow.py run`) runs the command line;
    `use_cli=False`, or a flow of any other module, gives an object to look at.
    """

    name: Any = _FlowName()  # Any: a step may assign its own

    def __init__(self, use_cli: bool = True) -> None:
        main = sys.modules.get("__main__")
        started = main is not None and hasattr(main, "__file__")
        if use_cli and started and sys.modules.get(type(self).__module__) is main:
            # By name: the command line stands far above the flow language, and imports it.
            importlib.import_module("engine.worker.loader").adopt_main()
            importlib.import_module("engine.cli.flow_command").main(type(self))

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        """The steps' functions, in the order of the source."""
        return iter(steps_of(type(self)).values())

    @property
    def index(self) -> int | None:
        """The task's place in the innermost foreach around it, from 0; None outside of any."""
        frames = _foreach_frames(self)
        return frames[-1].index if frames else None

    @property
    def input(self) -> Any:  # Any: users' values
        """The task's item of the innermost foreach around it; None outside of any."""
        frames = _foreach_frames(self)
        return _item(self, len(frames) - 1) if frames else None

    def foreach_stack(self) -> list[tuple[int, int, Any]]:  # Any: users' values
        """(index, number of siblings, item) of each foreach around the task, outermost first."""
        frames = _foreach_frames(self)
        return [(f.index, f.total, _item(self, i)) for i, f in enumerate(frames)]

    def next(
        self,
        *targets: Callable[..., Any],
        foreach: str | None = None,
        num_parallel: int | None = None,
        **unsupported: object,
    ) -> None:
        """Say where the flow goes: to one step, to several at once, or to one many times.

        Args:
            targets: steps of this flow, as `self.name`.
            foreach: name of an artifact to iterate over; its items become `self.input`.
            num_parallel: how many tasks of a @parallel step run together, at least 1.

        Raises:
            FlowError: the step has called it already, or the words do not fit together.
        """
        state = _state(self, "self.next")
        at = state.binding.step
        if state.transition is not None:
            raise FlowError(
                f"step {at!r} calls self.next a second time",
                hint="one call of self.next, as the last statement, ends a step",
            )
        if unsupported:
            raise unsupported_next(at, next(iter(unsupported)))
        names = tuple(_target_name(self, t, at) for t in targets)
        many = {"foreach": foreach, "num_parallel": num_parallel}
        many = {word: value for word, value in many.items() if value is not None}
        is_one_way = not many or len(many) == len(names) == 1
        if not (names and is_one_way) or len({*names}) < len(names):
            raise FlowError(
                f"step {at!r} calls self.next with {listed(names) if names else 'no step'}"
                + "".join(f" and {word}={value!r}" for word, value in many.items()),
                hint="self.next takes one step, several different steps, or one with foreach= or "
                "num_parallel=",
            )
        if foreach is not None:
            _require_iterable(self, foreach, at)
        if num_parallel is not None:
            state.num_parallel = _width(num_parallel, at)
        state.transition = names, foreach

    def merge_artifacts(
        self,
        inputs: Iterable["FlowSpec"],
        exclude: Sequence[str] | None = None,
        include: Sequence[str] | None = None,
    ) -> None:
        """Pass on, in a join, what all branches agree about and this step did not set itself.

        Args:
            inputs: the join's inputs.
            exclude: names to leave out.
            include: the only names to pass on; not together with `exclude`.

        Raises:
            MergeError: the step is no join, or `include` and `exclude` are both given.
            UnhandledInMergeArtifactsException: branches differ; nothing is passed on.
            MissingInMergeArtifactsException: no branch has what `include` names.
        """
        state = _state(self, "self.merge_artifacts")
        own = {*self.__dict__, *state.binding.source.names(), *state.binding.constants}
        sources = (_state(i, "self.merge_artifacts").binding.source for i in inputs)
        state.carried.update(
            merged(
                state.binding,
                sources,
                own=own,
                include=tuple(include or ()),
                exclude=tuple(exclude or ()),
            )
        )
        state.dropped.difference_update(state.carried)

    def __getattr__(self, name: str) -> Any:  # Any: users' values
        state: _State | None = self.__dict__.get("_aflow")
        if state is None or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if hasattr(type(self), name):
            # A property of the user's raised AttributeError: let it say so itself.
            return object.__getattribute__(self, name)
        return load_artifact(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        state = _writable(self, name, "set")
        object.__setattr__(self, name, value)
        if state is not None:
            state.dropped.discard(name)
            state.carried.pop(name, None)

    def __delattr__(self, name: str) -> None:
        state = _writable(self, name, "deleted")
        here = name in self.__dict__
        if here:
            object.__delattr__(self, name)
        if state is not None and _source_of(state, name) is not None:
            state.dropped.add(name)
            state.carried.pop(name, None)
        elif not here:
            raise AttributeError(_missing(self, name))

    # What follows is for the worker. Names that begin with `_` here are refused as artifacts.

    def _bind(self, binding: TaskBinding) -> Self:
        """Make this object the task that `binding` describes, with nothing loaded yet."""
        self.__dict__.clear()
        self.__dict__["_aflow"] = _State(binding)
        return self

    @classmethod
    def _bound(cls, binding: TaskBinding) -> Self:
        """A new flow object that is the task of `binding`, without running `__init__`."""
        return cls.__new__(cls)._bind(binding)

    @property
    def _transition(self) -> tuple[tuple[str, ...], str | None] | None:
        """The targets and the foreach name that self.next was called with; None before."""
        return _state(self, "_transition").transition

    @property
    def _num_parallel(self) -> int | None:
        """The num_parallel that self.next was called with, if it was."""
        return _state(self, "_num_parallel").num_parallel

    @property
    def _carried(self) -> Mapping[str, ArtifactSource]:
        """What merge_artifacts passes on: adopt these entries by digest, unless changed."""
        return _state(self, "_carried").carried

    def _changed(self) -> dict[str, Any]:  # Any: users' values
        """The artifacts to save: assigned, or loaded and perhaps mutated in place since."""
        state = _state(self, "_changed")
        return {
            name: value
            for name, value in self.__dict__.items()
            if name != "_aflow"
            and name not in state.binding.constants
            and not _untouched(state, name, value)
        }

    def _dropped(self) -> frozenset[str]:
        """The inherited artifacts that the step deleted."""
        return frozenset(_state(self, "_dropped").dropped)


NAME_MAX_BYTES = 128
RESERVED_NAMES = frozenset(n for n in vars(FlowSpec) if not n.startswith("__") and n != "name") | {
    "_aflow"
}
"""Names that no artifact, parameter, constant or step may have."""


def steps_of(cls: type[FlowSpec]) -> dict[str, Callable[..., Any]]:
    """The steps of a flow by name, those of its bases first, in the order of the source."""
    found: dict[str, Callable[..., Any]] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if is_step(value):
                found[name] = value
            else:
                found.pop(name, None)
    return found


def load_artifact(flow: FlowSpec, name: str) -> Any:  # Any: users' values
    """An artifact of the task that `flow` is, loaded and kept; AttributeError if there is none."""
    state = _state(flow, f"self.{name}")
    source = _source_of(state, name)
    if source is None:
        raise AttributeError(_missing(flow, name))
    value = state.loaded[name] = flow.__dict__[name] = source.load(name)
    return value


def is_bound(flow: FlowSpec) -> bool:
    """Whether the flow object is a running task, and not just something to look at."""
    return "_aflow" in flow.__dict__


def unsupported_next(at: str, keyword: str) -> FlowError:
    """The error for a keyword of self.next that this release does not have."""
    known = {
        "condition": "put the condition inside of a step, and let both ways lead to the same step",
    }
    if keyword in known:
        return FlowError(
            f"step {at!r} calls self.next with {keyword}=, which this release does not support",
            hint=known[keyword],
        )
    return FlowError(
        f"step {at!r} calls self.next with {keyword}=, which it does not know",
        hint=did_you_mean(keyword, ["foreach", "num_parallel"])
        or "self.next takes steps, and foreach= or num_parallel=",
    )


def _state(flow: FlowSpec, what: str) -> _State:
    state: _State | None = flow.__dict__.get("_aflow")
    if state is None:
        raise FlowError(
            f"{what} is for steps that run; this {type(flow).__name__} object is not a task",
            hint="run the flow: `aflow run FILE`, or `await Engine.run(Flow)`",
        )
    return state


def _foreach_frames(flow: FlowSpec) -> list[Frame]:
    return [f for f in _state(flow, "self.input").binding.frames if f.is_foreach]


def _item(flow: FlowSpec, level: int) -> Any:  # Any: users' values
    state = _state(flow, "self.input")
    if level not in state.items:
        state.items[level] = state.binding.item(level)
    return state.items[level]


def _source_of(state: _State, name: str) -> ArtifactSource | None:
    if name in state.dropped:
        return None
    source = state.carried.get(name) or state.binding.source
    return source if name in source.names() else None


def _untouched(state: _State, name: str, value: object) -> bool:
    return name in state.loaded and state.loaded[name] is value and _is_immutable(value)


def _is_immutable(value: object) -> bool:
    if type(value) in (tuple, frozenset):
        return all(_is_immutable(v) for v in value)  # type: ignore[attr-defined]  # a container
    return type(value) in _IMMUTABLE


def _writable(flow: FlowSpec, name: str, verb: str) -> _State | None:
    """The flow's state, once it is sure that `name` may be an artifact."""
    if name in RESERVED_NAMES:
        raise AttributeError(f"self.{name} cannot be {verb}: the name belongs to FlowSpec")
    if not name.isidentifier() or len(name.encode()) > NAME_MAX_BYTES:
        raise AttributeError(
            f"{name[:80]!r} cannot be {verb}: an artifact's name is one that Python takes after "
            f"`self.`, of at most {NAME_MAX_BYTES} bytes"
        )
    if is_step(getattr(type(flow), name, None)):
        raise AttributeError(f"self.{name} cannot be {verb}: {name!r} is a step of this flow")
    state: _State | None = flow.__dict__.get("_aflow")
    if state is not None and name in state.binding.constants:
        raise AttributeError(
            f"self.{name} cannot be {verb}: it is a parameter or a class constant, which stay the "
            f"same through a run; give the new value another name"
        )
    return state


def _missing(flow: FlowSpec, name: str) -> str:
    state = _state(flow, name)
    binding = state.binding
    present = {*binding.source.names(), *state.carried, *flow.__dict__} - {"_aflow"}
    names = sorted(present - state.dropped)
    if name in state.dropped:
        text = f"artifact {name!r} was deleted in step {binding.step!r}"
    else:
        text = f"step {binding.step!r} has no artifact {name!r}"
    hint = did_you_mean(name, [*names, *steps_of(type(flow))])
    if hint is None and binding.is_join:
        hint = "a join begins with parameters alone: read inputs, or call self.merge_artifacts"
    return f"{text} ({hint or 'it has ' + (listed(names) or 'none')})"


def _target_name(flow: FlowSpec, target: object, at: str) -> str:
    if is_step(target) and getattr(target, "__self__", None) is flow:
        return str(target.__name__)  # type: ignore[attr-defined]  # a bound method has a name
    shown = repr(target) if isinstance(target, str) else f"a {type(target).__name__}"
    raise FlowError(
        f"step {at!r} calls self.next with {shown}, which is not a step of this flow",
        hint=f"write self.next(self.{target})" if isinstance(target, str) else None,
    )


def _width(given: object, at: str) -> int:
    """How many tasks a gang has."""
    try:
        width = operator.index(given)  # type: ignore[arg-type]  # TypeError is an answer
    except TypeError:
        width = 0
    if width < 1 or isinstance(given, bool):
        raise FlowError(
            f"step {at!r} calls self.next with num_parallel={given!r:.60}",
            hint="num_parallel= takes the number of tasks, a whole number of at least 1",
        )
    return width


def _require_iterable(flow: FlowSpec, foreach: object, at: str) -> None:
    if not isinstance(foreach, str):
        raise FlowError(
            f"step {at!r} calls self.next with foreach= a {type(foreach).__name__}",
            hint="foreach= takes the name of an artifact: self.items = [...]; foreach='items'",
        )
    try:
        value = getattr(flow, foreach)
    except AttributeError as error:
        raise FlowError(
            f"step {at!r} iterates over self.{foreach}, which does not exist",
            hint=f"assign it before self.next ({error})",
        ) from None
    try:
        iter(value)
    except TypeError:
        raise FlowError(
            f"step {at!r} iterates over self.{foreach}, which is {value!r:.60}, "
            f"a {type(value).__name__}, and not iterable",
            hint=f"make self.{foreach} a list",
        ) from None
