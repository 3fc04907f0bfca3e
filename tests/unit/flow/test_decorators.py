import contextlib
import pickle
from collections.abc import Callable
from importlib import metadata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import FlowSpec, catch, environment, resources, retry, step, timeout
from engine.errors import FlowError, PluginError, UsageError
from engine.flow.decorators import (
    BUILT_IN,
    Catch,
    Environment,
    Resources,
    Retry,
    StepDecorator,
    Timeout,
)
from engine.flow.decorators.base import mark_of
from engine.flow.decorators.specs import attach, decorators_of, parse_spec


class Decorated(FlowSpec):
    @retry
    @step
    def start(self) -> None:
        self.next(self.end)

    @timeout(minutes=1)
    @step
    @catch(var="oops")
    @environment(vars={"A": "1"})
    def end(self) -> None:
        pass


def test_decorators_are_values_outermost_first_above_or_below_step() -> None:
    assert decorators_of(Decorated) == {
        "start": (Retry(3, 2),),
        "end": (Timeout(minutes=1), Catch("oops"), Environment({"A": "1"})),
    }


def test_decorators_have_metaflows_defaults() -> None:
    assert Retry() == Retry(times=3, minutes_between_retries=2)
    assert Catch() == Catch(var=None, print_exception=True)
    assert Resources() == Resources(cpu=1, gpu=None, memory=4096, disk=None, shared_memory=None)
    assert Environment().vars == {}


@pytest.mark.parametrize("kind", BUILT_IN)
def test_every_decorator_is_frozen_and_crosses_processes(kind: type[StepDecorator]) -> None:
    value = kind(seconds=1) if kind is Timeout else kind()

    assert pickle.loads(pickle.dumps(value)) == value
    field = value.__struct_fields__[0]
    with pytest.raises(AttributeError):
        setattr(value, field, None)


def test_a_decorated_function_stays_itself() -> None:
    def function() -> str:
        return "called"

    assert retry(function) is function
    assert resources(gpu=1)(function)() == "called"
    mark = mark_of(function)
    assert mark
    assert mark.decorators == (Resources(gpu=1), Retry())


def test_a_decorator_twice_on_a_step_is_refused_with_its_line() -> None:
    with pytest.raises(FlowError, match="step 'f' has @retry twice") as caught:

        @retry
        @retry(times=1)
        def f() -> None: ...

    assert (caught.value.where or "").partition("  ")[0].startswith(f"{__file__}:")


def test_a_decorator_given_something_else_than_a_step_is_refused() -> None:
    with pytest.raises(FlowError, match="@retry was given 5, which is not a step") as caught:
        retry(5)  # type: ignore[call-overload]

    assert caught.value.hint == "name the attributes: @retry(name=value)"
    assert (caught.value.where or "").endswith("retry(5)  # type: ignore[call-overload]")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: retry(times=-1), "@retry(times=-1): times must be a whole number of at least 0"),
        (lambda: retry(times=1.5), "times must be a whole number"),
        (lambda: retry(times="many"), "@retry(times='many'): times must be a whole number"),
        (lambda: retry(times=True), "@retry(times=True)"),
        (lambda: retry(times=float("nan")), "times must be"),
        (lambda: retry(times=10**400), "times must be"),
        (lambda: retry(minutes_between_retries=-0.5), "must be a number of at least 0"),
        (lambda: timeout(), "@timeout(seconds=0): seconds must be above 0"),
        (lambda: timeout(seconds=-5, hours=1), "@timeout(seconds=-5)"),
        (lambda: timeout(minutes=float("inf")), "@timeout(minutes=inf)"),
        (lambda: catch(var="two words"), "@catch(var='two words')"),
        (lambda: catch(var=3), "@catch(var=3)"),
        (lambda: catch(print_exception="no"), "must be True or False"),
        (lambda: resources(cpu=0), "cpu must be above 0"),
        (lambda: resources(cpu=None), "cpu must be above 0"),
        (lambda: resources(gpu=0.5), "gpu must be a whole number"),
        (lambda: resources(memory="lots"), "@resources(memory='lots')"),
        (lambda: resources(memory=0), "memory must be a whole number of at least 1"),
        (lambda: environment(vars=["A"]), "vars must be a mapping"),
        (lambda: environment(vars={"A=B": "1"}), "names without `=`"),
        (lambda: environment(vars={"A": None}), "must have texts as values"),
        (lambda: environment(vars={"A": True}), "must have texts as values"),
        (lambda: environment(vars={"A": "x\0y"}), "without NUL"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_line(
    make: Callable[[], Any], says: str
) -> None:
    with pytest.raises(FlowError) as caught:
        make()

    assert says in caught.value.message
    assert says.startswith("@") or (caught.value.where or "").startswith(f"{__file__}:")


def test_numbers_may_come_as_text_and_sizes_with_units() -> None:
    assert Retry(times="2") == Retry(times=2)  # type: ignore[arg-type]
    assert Timeout(hours="0.5").total_s == 1800.0  # type: ignore[arg-type]
    assert Resources(memory="16G", disk="1.5T", shared_memory="512 MiB") == Resources(
        memory=16384, disk=1572864, shared_memory=512
    )
    assert Resources(memory="100k").memory == 1
    assert Environment({"N": 1}).vars == {"N": "1"}  # type: ignore[dict-item]


def test_timeouts_add_up() -> None:
    assert Timeout(seconds=1, minutes=1, hours=1).total_s == 3661.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("retry", Retry()),
        ("retry:", Retry()),
        ("retry:times=3,minutes_between_retries=0", Retry(3, 0)),
        (" retry : times = 1 ", None),
        ("catch:var=oops,print_exception=false", Catch("oops", False)),
        ("catch:print_exception=True,var=None", Catch(None, True)),
        ('environment:vars={"A": "x,y=1", "B": "[{"}', Environment({"A": "x,y=1", "B": "[{"})),
        ('environment:vars={"A": "\\"x"}', Environment({"A": '"x'})),
        ("resources:memory=16G,cpu=0.5", Resources(memory="16G", cpu=0.5)),
        ("timeout:seconds=5,", Timeout(seconds=5)),
    ],
)
def test_a_spec_is_read(text: str, value: StepDecorator | None) -> None:
    if value is None:
        with pytest.raises(UsageError):
            parse_spec(text)
    else:
        assert parse_spec(text) == value


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("rety", "there is no decorator 'rety'", "did you mean 'retry'?"),
        ("", "there is no decorator ''", "there are batch"),
        ("retry:3", "'3' is not FIELD=VALUE", "retry:times=VALUE"),
        ("retry:=3", "'=3' is not FIELD=VALUE", ""),
        ("retry:tims=3", "has no attribute 'tims'", "did you mean 'times'?"),
        ("retry:zzzzzzzz=3", "has no attribute 'zzzzzzzz'", "it has times"),
        ("retry:times=-1", "--with retry:times=-1: @retry(times=-1)", ""),
        ("timeout", "--with timeout: @timeout(seconds=0)", ""),
    ],
)
def test_a_spec_that_cannot_be_read_is_a_usage_error(text: str, says: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_spec(text)

    assert says in caught.value.message
    assert hint in (caught.value.hint or "")
    assert caught.value.exit_code == 2


@given(st.text())
def test_any_text_is_a_spec_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert isinstance(parse_spec(text), StepDecorator)


@given(times=st.integers(0, 10**6), minutes=st.floats(0, 10**6))
def test_a_written_spec_reads_as_the_same_value(times: int, minutes: float) -> None:
    value = Retry(times, minutes)

    assert parse_spec(f"retry:times={value.times},minutes_between_retries={minutes!r}") == value


def test_what_the_source_says_wins_over_attached_decorators() -> None:
    found = attach(Decorated, ["retry:times=9", Resources(cpu=4), "retry:times=8"])

    assert found["start"] == (Resources(cpu=4), Retry())
    assert found["end"][:2] == (Retry(times=8), Resources(cpu=4))
    assert decorators_of(Decorated)["start"] == (Retry(),)


def test_attaching_twice_is_attaching_once() -> None:
    once = attach(Decorated, ["retry:times=9"])

    assert decorators_of(Decorated, once) == once


def test_a_decorator_of_a_plugin_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("again", "engine.flow.decorators:Retry", "aflow.decorators")
    broken = metadata.EntryPoint("broken", "engine.flow.nowhere:Retry", "aflow.decorators")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point, broken])

    assert parse_spec("again:times=1") == Retry(times=1)
    with pytest.raises(PluginError):
        parse_spec("broken")
    with pytest.raises(UsageError) as caught:
        parse_spec("agian")
    assert caught.value.hint == "did you mean 'again'?"
