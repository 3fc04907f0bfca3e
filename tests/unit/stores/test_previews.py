"""A preview is short, printable, cheap, and never an error."""

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.stores.previews import PREVIEW_MAX, preview, type_name


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Escapes:
    def __repr__(self) -> str:
        return "\x1b]52;c;evil\x07\nfake line"


class Small:
    def __repr__(self) -> str:
        return "Small(1)"


class RudeLength(list[int]):
    shape = (3,)

    @property
    def dtype(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "None"),
        (True, "True"),
        (12, "12"),
        (2**600, "<int of 601 bits>"),
        (1.5, "1.5"),
        ("text", "'text'"),
        ("a\nb", "'a\\nb'"),
        (b"ab", "b'ab'"),
        ([], "[]"),
        ([1, "a", [2], {}], "[1, 'a', […], {}]"),
        ((1,), "(1,)"),
        (set(), "set()"),
        (frozenset(), "frozenset()"),
        ({"a": 1, "b": (1,)}, "{'a': 1, 'b': (…)}"),
        (list(range(1000)), "[0, 1, 2, 3, 4, 5, …] (1,000 items)"),
        ([Small()], "[<Small>]"),
        (Small(), "Small(1)"),
        (Rude(), f"<{__name__}.Rude>"),
        (RudeLength(), f"<{__name__}.RudeLength>"),
        (Escapes(), "\\x1b]52;c;evil\\x07\\nfake line"),
        (np.zeros((2, 3)), "ndarray 2 x 3 of float64"),
        (np.array(5), "ndarray scalar of int64"),
        (pd.DataFrame({"a": [1, 2]}), "DataFrame 2 x 1"),
    ],
)
def test_a_preview_says_what_there_is(value: object, expected: str) -> None:
    assert preview(value, 10) == expected


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.binary() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
        max_leaves=30,
    )
)
def test_a_preview_is_one_short_printable_line(value: object) -> None:
    text = preview(value, 10)
    assert len(text) <= PREVIEW_MAX
    assert text.isprintable()


def test_long_texts_are_cut_with_a_mark() -> None:
    for value in ("x" * 10_000, b"x" * 10_000, ["y" * 200] * 5, {"k" * 50: "v" * 50}):
        text = preview(value, 10_000)
        assert len(text) <= PREVIEW_MAX
        assert "…" in text


@pytest.mark.serial
def test_a_preview_of_a_huge_value_costs_nothing() -> None:
    huge: list[Any] = [
        "x" * 50_000_000,
        list(range(5_000_000)),
        10**200_000,
        np.zeros(10_000_000),
        dict.fromkeys(range(1_000_000)),
    ]
    began = time.perf_counter()
    for value in huge:
        preview(value, 10**8)
    assert time.perf_counter() - began < 1  # to print them all takes tens of seconds


def test_a_large_object_is_not_asked_for_its_repr() -> None:
    assert preview(Small(), 10_000) == f"<{__name__}.Small>"


def test_a_type_is_named_with_its_module() -> None:
    assert type_name(1) == "int"
    assert type_name(np.zeros(1)) == "numpy.ndarray"
    assert type_name(Small()) == f"{__name__}.Small"
