"""Every bad input of the table ends with its exit code, says what is wrong, and loses nothing."""

from pathlib import Path

import pytest

from tests.faults.bad_inputs import CASES, ROOT, Case, attempt, furnish, lost


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad_inputs")
    furnish(folder)
    return folder


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_bad_input_is_told_and_ends_with_its_exit_code(case: Case, place: Path) -> None:
    said = attempt(case, place)

    assert said.code == case.code, said.err
    assert case.says in said.err
    assert f"{ROOT}/engine/" not in said.err  # nobody is shown frames of the engine


def test_nothing_is_lost_by_all_of_them(place: Path) -> None:
    assert lost(place) == ""
