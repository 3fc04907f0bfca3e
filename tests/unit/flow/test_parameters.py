import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import FlowSpec, JSONType, Parameter, step
from engine.errors import ParameterError
from engine.flow.parameters import (
    VALUE_MAX_BYTES,
    ParameterContext,
    constants_of,
    environment_name,
    normal,
    parameters_of,
    resolve,
)


def flow(**parameters: Any) -> type[FlowSpec]:
    """A flow class with these attributes."""
    return type("Tuning", (FlowSpec,), parameters)


class Search(FlowSpec):
    alpha = Parameter("alpha", default=0.1, help="learning rate")
    rounds = Parameter("rounds", default=10)
    grid = Parameter("grid", type=JSONType, default='{"a": [1, 2]}')
    verbose = Parameter("verbose", default=False)
    title = Parameter("run-title", required=True)
    tags_ = Parameter("labels", default="a,b", separator=",")
    nothing = Parameter("nothing")

    limit = 3
    _hidden = 4

    @step
    def start(self) -> None:
        pass

    def method(self) -> None:
        pass

    @staticmethod
    def static() -> None:
        pass

    @property
    def computed(self) -> int:
        return 1

    class Inner:
        pass


def test_values_are_the_given_ones_or_defaults_of_the_right_types() -> None:
    values = resolve(Search, {"run-title": "x", "rounds": "3", "Verbose": "yes"}, {})

    assert values == {
        "alpha": 0.1,
        "rounds": 3,
        "grid": {"a": [1, 2]},
        "verbose": True,
        "title": "x",
        "tags_": ["a", "b"],
        "nothing": None,
    }


def test_given_wins_over_the_environment_and_that_over_the_default() -> None:
    environ = {"AFLOW_PARAMETER_RUN_TITLE": "env", "AFLOW_PARAMETER_ROUNDS": "5", "ROUNDS": "9"}

    assert resolve(Search, {}, environ)["title"] == "env"
    assert resolve(Search, {"run-title": "given"}, environ)["title"] == "given"
    assert resolve(Search, {}, environ)["rounds"] == 5
    assert environment_name(Search.title) == "AFLOW_PARAMETER_RUN_TITLE"


@pytest.mark.parametrize("name", ["run-title", "run_title", "RUN-Title", "title", "TITLE"])
def test_names_are_the_same_in_any_case_with_dash_or_underscore_or_by_attribute(name: str) -> None:
    assert resolve(Search, {name: "x"}, {})["title"] == "x"


def test_a_parameter_given_under_two_names_is_refused() -> None:
    with pytest.raises(
        ParameterError, match="'run-title' is given twice, as 'run-title' and as 'title'"
    ):
        resolve(Search, {"run-title": "x", "title": "y"}, {})


def test_a_missing_required_parameter_says_how_to_give_it() -> None:
    with pytest.raises(ParameterError, match="'run-title' is required") as caught:
        resolve(Search, {}, {})

    assert caught.value.hint == "give it with --run-title or AFLOW_PARAMETER_RUN_TITLE"
    assert caught.value.exit_code == 2
    assert "test_parameters.py:" in (caught.value.where or "")


def test_an_unknown_parameter_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(ParameterError, match="flow Search has no parameter 'alhpa'") as caught:
        resolve(Search, {"alhpa": 1, "run-title": "x"}, {})
    assert caught.value.hint == "did you mean 'alpha'?"

    with pytest.raises(ParameterError) as caught:
        resolve(flow(a=Parameter("a")), {"zzzzz": 1}, {})
    assert caught.value.hint == "it has a"
    with pytest.raises(ParameterError) as caught:
        resolve(flow(), {"zzzzz": 1}, {})
    assert caught.value.hint == "it has none"


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ParameterError) as caught:
        resolve(Search, {"alpha": "big", "rounds": "1.5", "nope": 1}, {"AFLOW_PARAMETER_GRID": "{"})

    messages = [caught.value.message, *(e.message for e in caught.value.others)]
    assert messages == [
        "flow Search has no parameter 'nope'",
        "parameter 'alpha' must be float, not 'big'",
        "parameter 'rounds' must be int, not '1.5'",
        "parameter 'grid' must be JSON: Expecting property name enclosed in double quotes "
        "at line 1, column 2, near '{'",
        "parameter 'run-title' is required",
    ]
    assert "AFLOW_PARAMETER_GRID" in (caught.value.others[2].hint or "")


@pytest.mark.parametrize(
    ("declared", "value", "says"),
    [
        (int, "x", "must be int, not 'x'"),
        (int, 1.5, "must be int, not 1.5, which is float"),
        (int, True, "must be int, not True, which is bool"),
        (float, "1,5", "must be float, not '1,5'"),
        (float, False, "must be float, not False, which is bool"),
        (bool, "maybe", "must be bool, not 'maybe'"),
        (bool, 1, "must be bool, not 1, which is int"),
        (str, 5, "must be str, not 5, which is int"),
        (str, ["x" * 100], "must be str, not \\['x+\\.\\.\\., which is list"),
        (JSONType, "[1,", "must be JSON: Expecting value at line 1, column 4, near '\\[1,'"),
        (JSONType, "\n\n x", "must be JSON: Expecting value at line 3, column 2"),
        (JSONType, "[" * 100_000, "must be JSON: "),
        (JSONType, {1, 2}, "must be what JSON can say"),
        (str, "x" * (VALUE_MAX_BYTES + 1), "is longer than 1,048,576 bytes"),
    ],
)
def test_a_value_of_the_wrong_type_names_value_and_type(
    declared: object, value: object, says: str
) -> None:
    with pytest.raises(ParameterError, match=f"^parameter 'p' {says}"):
        Parameter("p", type=declared).convert(value)


@pytest.mark.parametrize(
    ("declared", "value", "meant"),
    [
        (float, 1, 1.0),
        (float, "1e3", 1000.0),
        (int, " 7 ", 7),
        (bool, " TRUE ", True),
        (bool, "off", False),
        (bool, True, True),
        (str, "", ""),
        (JSONType, '"text"', "text"),
        (JSONType, [1, None], [1, None]),
        (JSONType, 5, 5),
    ],
)
def test_values_are_understood(declared: object, value: object, meant: object) -> None:
    got = Parameter("p", type=declared).convert(value)

    assert got == meant
    assert type(got) is type(meant)


@given(st.integers())
def test_any_int_comes_back_from_its_text(value: int) -> None:
    assert Parameter("p", type=int).convert(str(value)) == value


@given(st.floats(allow_nan=False))
def test_any_float_comes_back_from_its_text(value: float) -> None:
    assert Parameter("p", type=float).convert(repr(value)) == value


@given(st.booleans())
def test_any_bool_comes_back_from_its_text(value: bool) -> None:
    assert Parameter("p", type=bool).convert(str(value)) is value


@given(st.text())
def test_any_text_stays_as_it_is(value: str) -> None:
    assert Parameter("p", type=str).convert(value) == value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_anything_json_can_say_comes_back_from_its_text(value: object) -> None:
    assert Parameter("p", type=JSONType).convert(json.dumps(value)) == value


@given(st.lists(st.text(alphabet="abc d"), min_size=1).filter(lambda v: v != [""]))
def test_a_separator_cuts_what_it_joined(values: list[str]) -> None:
    assert Parameter("p", separator=",").convert(",".join(values)) == values


@given(
    given_names=st.lists(st.text(max_size=6), max_size=4),
    values=st.lists(st.text(max_size=8), min_size=4, max_size=4),
)
def test_whatever_is_given_is_resolved_or_refused(
    given_names: list[str], values: list[str]
) -> None:
    given_values = dict(zip(given_names, values, strict=False))
    try:
        found = resolve(Search, given_values, {"AFLOW_PARAMETER_RUN_TITLE": "x"})
    except ParameterError:
        assert given_values
    else:
        assert set(found) == set(parameters_of(Search))


@pytest.mark.parametrize(
    ("default", "kind"),
    [
        (1, int),
        (1.5, float),
        (True, bool),
        ("x", str),
        (None, str),
        ([1], JSONType),
        ({"a": 1}, JSONType),
        (lambda context: 1, str),
    ],
)
def test_the_type_is_that_of_the_default(default: object, kind: object) -> None:
    assert Parameter("p", default=default).type is kind


def test_a_callable_default_is_told_the_run_and_called_once_if_it_is_needed() -> None:
    told: list[ParameterContext] = []

    def default(context: ParameterContext) -> int:
        told.append(context)
        return 7

    cls = flow(a=Parameter("a-b", default=default, type=int))
    context = ParameterContext(user_name="ann", ds_type="s3")

    assert resolve(cls, {}, {}, context=context) == {"a": 7}
    assert resolve(cls, {"a-b": 8}, {}, context=context) == {"a": 8}
    assert [(c.flow_name, c.parameter_name, c.user_name, c.ds_type) for c in told] == [
        ("Tuning", "a-b", "ann", "s3")
    ]


def test_a_callable_default_can_log(capsys: pytest.CaptureFixture[str]) -> None:
    def default(context: ParameterContext) -> str:
        context.logger("choosing")
        return "x"

    assert resolve(flow(a=Parameter("a", default=default)), {}, {}) == {"a": "x"}
    assert capsys.readouterr().err == "choosing\n"


def test_a_callable_default_that_fails_or_lies_about_its_type_is_an_error() -> None:
    def fails(context: ParameterContext) -> int:
        raise ZeroDivisionError("no")

    with pytest.raises(
        ParameterError, match="default of parameter 'a' raised ZeroDivisionError: no"
    ):
        resolve(flow(a=Parameter("a", default=fails)), {}, {})
    with pytest.raises(ParameterError, match="must be int, not 'x'"):
        resolve(flow(a=Parameter("a", default=lambda c: "x", type=int)), {}, {})


def test_parameters_are_inherited_overridden_and_removed() -> None:
    base = flow(a=Parameter("a", default=1), b=Parameter("b", default=2), c=Parameter("c"))
    child = type("Child", (base,), {"b": Parameter("b", default=3), "c": None})

    assert resolve(child, {}, {}) == {"a": 1, "b": 3}


def test_constants_are_the_public_plain_values_of_the_class() -> None:
    assert constants_of(Search) == {"limit": 3}

    child = type("Child", (Search,), {"limit": 4, "more": [1], "json": json, "path": Path("x")})
    assert constants_of(child) == {"limit": 4, "more": [1], "path": Path("x")}


def test_normal_names_ignore_case_and_dashes() -> None:
    assert normal("Learning-Rate") == normal("learning_rate") == "learning_rate"


def test_a_parameter_shows_its_name_and_where_it_stands() -> None:
    assert repr(Search.alpha) == "Parameter('alpha')"
    assert Search.alpha.where.endswith(
        'alpha = Parameter("alpha", default=0.1, help="learning rate")'
    )
    assert repr(JSONType) == Search.grid.type_name == "JSON"
