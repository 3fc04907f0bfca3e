import pytest

from tests.house.sizes import faults, modules, too_large


def problems(source: str) -> list[str]:
    return [problem for _, problem in too_large(source)]


def test_a_module_a_class_and_a_function_over_their_limit_are_named() -> None:
    assert problems("x = 1\n" * 501) == ["module has 501 lines, at most 500"]
    assert problems("class Big:\n" + "    x = 1\n" * 300) == [
        "class Big has 301 lines, at most 300"
    ]
    assert problems("def f(a, b, c, d, e, f, g): ...\n") == ["f has 7 parameters, at most 6"]


def test_self_is_not_counted_and_keyword_only_parameters_are() -> None:
    method = "class C:\n    def f(self, a, b, c, d, e, f): ...\n"
    assert problems(method) == []
    assert problems(method.replace(", f)", ", *, f, g)")) == ["f has 7 parameters, at most 6"]


def test_a_click_command_may_have_as_many_options_as_it_needs() -> None:
    assert problems("@group.command()\ndef run(a, b, c, d, e, f, g): ...\n") == []


def test_what_is_at_its_limit_passes() -> None:
    assert problems("x = 1\n" * 500) == []


@pytest.mark.slow
def test_nothing_of_ours_is_too_large() -> None:
    assert faults(modules()) == []
