"""The reliability page is made of what was run, and of nothing else."""

import json
import sys
from pathlib import Path

import pytest

from tests.reliability import record
from tests.reliability.page import OPENING, PAGE, drawn
from tests.reliability.results import Results, Row, RowResult, rows

LOCAL = [
    "R-01",
    "R-02",
    "R-03",
    "R-04",
    "R-05",
    "R-06",
    "R-07",
    "R-08",
    "R-10",
    "R-11",
    "R-12",
    "R-13",
    "R-14",
    "R-15",
    "R-17",
    "R-18",
    "R-19",
    "R-20",
    "R-21",
    "R-22",
    "R-23",
    "R-24",
    "S-03",
    "S-04",
    "S-05",
    "S-07",
    "S-08",
    "S-09",
    "S-11",
    "S-13",
]
LATER = [
    "R-09",
    "R-16",
    "S-01",
    "S-02",
    "S-06",
    "S-10",
    "S-12",
]

SHOWN = Row("R-98", "a | fault", "it holds")
WAITING = Row("R-99", "another", "it holds", waits="the moon")
JUNIT = """<testsuites><testsuite>
  <testcase name="test_r98_holds[1]">
    <properties><property name="kills" value="3"/></properties>
  </testcase>
  <testcase name="test_r98_holds[2]">
    <properties><property name="kills" value="4"/><property name="s" value="0.5"/></properties>
  </testcase>
  <testcase name="test_r98_elsewhere"><skipped message="no such system"/></testcase>
  <testcase name="test_of_no_row"/>
  <testcase name="test_s03_fails"><failure message="no"/></testcase>
</testsuite></testsuites>"""


def results(folder: Path) -> Results:
    (folder / "junit.xml").write_text(JUNIT)
    made = Results("2026-01-02", "abc1234", "Linux, 2 cores, Python 3")
    made.add_tests(folder / "junit.xml")
    line = {"row": "R-98", "command": "python -m x", "passed": True, "counts": {"seeds": 10000}}
    made.add_campaigns([json.dumps(line)])
    return made


def page(made: Results, *of: Row) -> str:
    return drawn(f"before\n{OPENING}stale\n<!-- end -->\nafter\n", list(of), made)


def test_the_rows_are_those_that_are_due_here_and_those_that_wait() -> None:
    assert [row.id for row in rows() if not row.waits] == LOCAL
    assert [row.id for row in rows() if row.waits] == LATER


def test_the_page_has_every_row_once_and_was_written_by_the_command() -> None:
    text = PAGE.read_text()
    table = text.partition(OPENING)[2]
    for row in rows():
        (line,) = (li for li in table.splitlines() if li.startswith(f"| {row.id} |"))
        assert row.fault in line
        assert row.waits in line or "tests passed" in line  # of a part that is there


def test_tests_are_counted_by_their_names_and_what_they_counted_is_added_up(
    tmp_path: Path,
) -> None:
    of = results(tmp_path).of("R-98")
    assert of.tests == {"passed": 2, "skipped": 1}
    assert of.counts == {"kills": 7, "s": 0.5}
    assert of.is_shown


def test_the_matrix_is_made_of_the_results(tmp_path: Path) -> None:
    text = page(results(tmp_path), SHOWN, WAITING)
    assert text.startswith("before\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "stale" not in text
    assert (
        "2026-01-02, commit abc1234, Linux, 2 cores, Python 3: 1 of 2 rows shown by 2 tests and "
        "1 campaigns." in text
    )
    assert (
        "| R-98 | a \\| fault | it holds | 2 of 3 tests passed, 1 skipped (7 kills, 0.5 s); "
        "`python -m x`: 10,000 seeds | ok |" in text
    )
    assert "| R-99 | another | it holds | waits for the moon |  |" in text


def test_results_that_were_written_make_the_same_page(tmp_path: Path) -> None:
    made = results(tmp_path)
    made.write(tmp_path / "results.json")
    again = Results.read(tmp_path / "results.json")
    assert page(again, SHOWN, WAITING) == page(made, SHOWN, WAITING)


def test_what_failed_or_was_not_run_is_a_problem_and_stands_in_the_page(tmp_path: Path) -> None:
    made = results(tmp_path)
    missing = Row("R-97", "a third", "it holds")
    fails = Row("S-03", "a fourth", "it holds")
    assert made.missing([SHOWN, WAITING]) == []
    assert made.missing([missing, fails]) == [
        "R-97: no test of it has passed",
        "S-03: test_s03_fails failed",
    ]
    text = page(made, missing, fails)
    assert "| R-97 | a third | it holds | nothing | **not shown** |" in text
    assert "| S-03 | a fourth | it holds | 0 of 1 tests passed | **failed** |" in text


def test_a_campaign_that_failed_fails_its_row() -> None:
    made = Results("", "", "", {"R-98": RowResult(tests={"passed": 5})})
    assert made.missing([SHOWN]) == []
    made.add_campaigns(['{"row": "R-98", "command": "python -m x", "passed": false}'])
    assert not made.of("R-98").is_shown
    assert made.missing([SHOWN]) == ["R-98: python -m x failed"]


def test_a_page_without_a_place_for_the_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="0 places"):
        drawn("none", [], Results("", "", ""))


def test_a_campaign_appends_what_it_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "records"
    monkeypatch.setattr(sys, "argv", ["x.py", "--kills", "3", "--record", str(file)])
    record.write_record(None, "R-98", {"kills": 3}, passed=True)
    record.write_record(file, "R-98", {"kills": 3}, passed=True)
    record.write_record(file, "R-98", {"kills": 4}, passed=False)
    first, second = map(json.loads, file.read_text().splitlines())
    assert first["command"].endswith("--kills 3")
    assert (first["counts"], first["passed"]) == ({"kills": 3}, True)
    assert (second["counts"], second["passed"]) == ({"kills": 4}, False)
