import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import EngineError, TaskTimedOutError
from engine.worker.failure import MESSAGE_MAX_CHARS, TRACEBACK_MAX_CHARS, failure_of


class OddError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def caught(act: Callable[[], object]) -> BaseException:
    try:
        act()
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever `act` raises)
        return error
    raise AssertionError("nothing was raised")


def raiser(error: BaseException) -> Callable[[], object]:
    def act() -> object:
        raise error

    return act


def test_the_place_is_the_innermost_line_of_the_users_own_code() -> None:
    failure = failure_of(caught(lambda: json.loads("{")), step="s")
    assert failure.where.endswith('failure = failure_of(caught(lambda: json.loads("{")), step="s")')
    assert failure.where.startswith(f"{__file__}:")
    assert "json/decoder.py" in failure.traceback
    assert failure.type == "json.decoder.JSONDecodeError"


def test_frames_of_the_engine_are_hidden() -> None:
    lint = importlib.import_module("engine.flow.lint")
    failure = failure_of(caught(lambda: lint.graph_of(None)), step="s")
    assert "engine/flow" not in failure.traceback
    assert "test_failure.py" in failure.traceback


def as_if_the_engine_had_called(error: BaseException) -> BaseException:
    assert error.__traceback__ is not None
    while error.__traceback__.tb_next:
        error.__traceback__ = error.__traceback__.tb_next
    return error


def test_a_bug_with_engine_frames_alone_shows_them() -> None:
    error = caught(lambda: importlib.import_module("engine.ids").new_run_id("now", 1))
    failure = failure_of(as_if_the_engine_had_called(error), step="s")
    assert "engine/ids.py" in failure.traceback
    assert failure.where == ""


def test_an_error_of_the_engine_is_told_without_frames_and_causes() -> None:
    error = caught(lambda: importlib.import_module("engine.ids").Pathspec.parse("a/b/c/d/e/f"))
    error.__cause__ = OSError("beneath")
    failure = failure_of(as_if_the_engine_had_called(error), step="s")
    assert failure.traceback == f"engine.errors.UsageError: {error}\n"


def test_an_engine_error_keeps_its_code_hint_and_place() -> None:
    failure = failure_of(TaskTimedOutError("late", hint="hurry", where="flow.py:1"), step="s")
    assert (failure.code, failure.hint, failure.where) == ("task-timeout", "hurry", "flow.py:1")
    assert failure.retryable
    assert not failure_of(EngineError("x"), step="s").retryable


@pytest.mark.parametrize("code", [0, None, 3, "stopped"])
def test_sys_exit_is_a_failure_whatever_its_code(code: object) -> None:
    failure = failure_of(caught(lambda: sys.exit(code)), step="s")
    assert failure.message == f"step 's' called sys.exit({code!r})"
    assert (failure.code, failure.type) == ("task-failed", "SystemExit")


def test_causes_and_contexts_are_told() -> None:
    def act() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    failure = failure_of(caught(act), step="s")
    assert failure.message == "second"
    assert "KeyError: 'first'" in failure.traceback
    assert "direct cause" in failure.traceback


def test_the_parts_of_a_group_are_told() -> None:
    group = ExceptionGroup("several", [caught(raiser(ValueError("one"))), KeyError("two")])
    failure = failure_of(group, step="s")
    assert failure.message == "several (2 sub-exceptions)"
    assert "ValueError: one" in failure.traceback
    assert "KeyError: 'two'" in failure.traceback
    assert failure.where.endswith("raise error"), "of a group that nobody raised, its first part's"


def test_a_syntax_error_is_at_its_own_place(tmp_path: Path) -> None:
    failure = failure_of(caught(lambda: compile("x = = 1", "made.py", "exec")), step="s")
    assert failure.where == "made.py:1  x = = 1"
    assert failure.type == "SyntaxError"


def test_an_exception_whose_text_fails_is_still_told() -> None:
    failure = failure_of(caught(raiser(OddError())), step="s")
    assert failure.message == "<its text cannot be shown: __str__ raised RuntimeError>"
    assert "OddError" in failure.traceback


def test_an_exception_without_text_is_told_by_its_type() -> None:
    assert failure_of(caught(raiser(ValueError())), step="s").message == "ValueError"


def test_endless_texts_and_traces_are_cut_in_the_middle() -> None:
    failure = failure_of(caught(raiser(ValueError("a" * 10_000_000 + "end"))), step="s")
    assert len(failure.message) < MESSAGE_MAX_CHARS + 100
    assert len(failure.traceback) < TRACEBACK_MAX_CHARS + 100
    assert failure.message.startswith("aaa")
    assert failure.message.endswith("aend")
    assert "9,996,003 characters left out" in failure.message


def test_endless_recursion_is_told_shortly() -> None:
    def again() -> None:
        again()

    failure = failure_of(caught(again), step="s")
    assert failure.type == "RecursionError"
    assert "more times]" in failure.traceback
    assert failure.where.endswith("again()")


def test_a_text_that_utf8_cannot_hold_is_escaped() -> None:
    failure = failure_of(ValueError("\ud800"), step="s")
    assert failure.message == "\\ud800"
    failure.message.encode()
