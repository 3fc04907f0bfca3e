"""IncludeFile as it is declared; tests/unit/runtime/test_inclusion.py reads files."""

from pathlib import Path
from typing import Any

import pytest

from engine import FlowSpec, IncludeFile, Parameter, step
from engine.errors import ParameterError
from engine.flow.includes import IncludedFile
from engine.flow.parameters import constants_of, parameters_of, resolve


class Reads(FlowSpec):
    table = IncludeFile("table", default="table.csv", help="rows")
    image = IncludeFile("image", is_text=False)
    latin = IncludeFile("latin", encoding="latin-1", required=True)
    made = IncludeFile("made", default=lambda context: f"{context.parameter_name}.txt")

    @step
    def start(self) -> None:
        pass


def test_a_path_stands_for_the_file_until_the_run_begins() -> None:
    values = resolve(Reads, {"latin": Path("l.txt")}, {"AFLOW_PARAMETER_TABLE": "other.csv"})

    assert {n: v and (v.path, v.encoding) for n, v in values.items()} == {
        "table": ("other.csv", "utf-8"),
        "image": None,
        "latin": ("l.txt", "latin-1"),
        "made": ("made.txt", "utf-8"),
    }
    assert all(isinstance(v, IncludedFile) for v in values.values() if v is not None)


def test_it_is_a_parameter_and_no_constant() -> None:
    assert isinstance(Reads.table, Parameter)
    assert list(parameters_of(Reads)) == ["table", "image", "latin", "made"]
    assert constants_of(Reads) == {}
    assert (repr(Reads.table), Reads.table.type_name) == ("IncludeFile('table')", "FILE")
    assert Reads.table.where.endswith(
        'table = IncludeFile("table", default="table.csv", help="rows")'
    )


def test_a_required_file_must_be_given() -> None:
    with pytest.raises(ParameterError, match="'latin' is required"):
        resolve(Reads, {}, {})


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "must be the path of a file, not ''"),
        (3, "must be the path of a file, not 3"),
        (b"x", "must be the path of a file, not b'x'"),
        ("a\0b", "must be the path of a file"),
        ("s3://bucket/key", "must be the path of a file on this machine, not 's3://bucket/key'"),
    ],
)
def test_what_is_no_path_is_refused(value: object, problem: str) -> None:
    with pytest.raises(ParameterError, match=problem):
        Reads.table.convert(value)


@pytest.mark.parametrize(
    ("declared", "fault"),
    [
        ({"encoding": "utf-9"}, "parameter 'x' has encoding 'utf-9': unknown"),
        ({"encoding": "base64"}, "parameter 'x' has encoding 'base64': unknown"),
        ({"encoding": "utf-8", "is_text": False}, "parameter 'x' has an encoding, but is not text"),
        ({"parser": "loads"}, "parameter 'x' has parser 'loads', which is neither a function nor"),
        ({"default": 3}, "the default of parameter 'x' must be the path of a file, not 3"),
    ],
)
def test_a_wrong_declaration_is_a_fault(declared: dict[str, Any], fault: str) -> None:
    (found,) = IncludeFile("x", **declared).faults()

    assert found.startswith(fault)


def test_a_sound_declaration_is_none() -> None:
    assert IncludeFile("x", encoding="utf-16", parser="json.loads", default="a").faults() == []
    assert IncludeFile("x", parser=len, is_text=False).faults() == []
