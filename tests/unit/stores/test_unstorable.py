"""An artifact that cannot be stored is named, with its step and the path to the culprit."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.errors import UnstorableValueError
from engine.stores.serializers import serialize


class Layer:
    def __init__(self) -> None:
        self.size = 3
        self.lock = threading.Lock()


class Slotted:
    __slots__ = ("handle", "name")

    def __init__(self) -> None:
        self.name = "n"
        self.handle = threading.Lock()


class Raises:
    def __reduce__(self) -> Any:
        raise ValueError("not me")


class RaisesNothingUseful:
    def __reduce__(self) -> Any:
        raise ValueError


class BadKey:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __repr__(self) -> str:
        raise RuntimeError("no repr either")


class ReducesToItsParts:
    """Its culprit is hidden: no attribute fails alone."""

    def __reduce__(self) -> Any:
        return (dict, (generator(),))


def generator() -> Iterator[int]:
    yield 1


def closure() -> Callable[[], object]:
    lock = threading.Lock()
    return lambda: lock


LOCK = "cannot pickle '_thread.lock' object"


@pytest.mark.parametrize(
    ("value", "path", "problem"),
    [
        (threading.Lock(), "self.model", LOCK),
        ({"layers": [1, 2, Layer()]}, "self.model['layers'][2].lock", LOCK),
        ((1, (2, threading.Lock())), "self.model[1][1]", LOCK),
        (Slotted(), "self.model.handle", LOCK),
        ({"gen": generator()}, "self.model['gen']", "generator"),
        ([Raises()], "self.model[0]", "not me"),
        ([RaisesNothingUseful()], "self.model[0]", "ValueError"),
        ({"k" * 100: threading.Lock()}, "self.model['" + "k" * 38 + "…]", LOCK),
        ({BadKey(): 1}, "self.model (the key BadKey).lock", LOCK),
        ({frozenset({Layer}): Layer()}, ".lock", LOCK),
        ({Raises()}, "(the element <", "not me"),
        (closure(), "(its variable lock)", LOCK),
        ([ReducesToItsParts()], "self.model[0]", "pickle"),
    ],
)
def test_the_error_leads_to_the_culprit(value: object, path: str, problem: str) -> None:
    with pytest.raises(UnstorableValueError) as caught:
        serialize(value, artifact="model", step="train")
    error = caught.value
    assert path in error.path
    assert problem in error.problem
    assert "artifact 'model' of step 'train'" in error.message
    assert error.path in error.message
    assert error.hint is not None
    assert not error.retryable
    assert error.exit_code == 1


def test_the_example_in_the_manual() -> None:
    with pytest.raises(UnstorableValueError) as caught:
        serialize({"layers": [1, 2, Layer()]}, artifact="model", step="train")
    assert caught.value.message == (
        "artifact 'model' of step 'train' cannot be stored: "
        "self.model['layers'][2].lock: cannot pickle '_thread.lock' object"
    )


def test_a_value_that_is_nested_too_deeply_is_told_so() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(UnstorableValueError, match="nested too deeply"):
        serialize(value, artifact="x", step="s")
    while value:  # taken apart here: the interpreter would recurse
        value = value.pop()


def test_a_value_that_holds_itself_and_a_lock_is_searched_in_finite_time() -> None:
    value: dict[str, Any] = {}
    value["self"] = value
    value["lock"] = threading.Lock()
    with pytest.raises(UnstorableValueError, match="lock"):
        serialize(value, artifact="x", step="s")
