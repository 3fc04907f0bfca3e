"""What was run for each row: tests by their names (`test_r07_...`), campaigns by their records.

A results file is JSON and holds all that the page is made of, so that the page can be made again.
"""

import json
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from msgspec import Struct, convert, field, to_builtins

ROWS = Path(__file__).parent / "rows.toml"

_TEST = re.compile(r"test_([rs])(\d\d)_")
_NOT_PASSED = {"failure": "failed", "error": "failed", "skipped": "skipped"}


class Row(Struct, frozen=True):
    """A row of the matrix. `waits` names the part that is not there yet, if the row is of one."""

    id: str
    fault: str
    bar: str
    waits: str = ""


class Campaign(Struct, frozen=True):
    """What a campaign's `write_record` wrote, or else the line that it `said` last."""

    row: str
    command: str
    passed: bool
    counts: dict[str, int | float] = field(default_factory=dict)
    said: str = ""


class RowResult(Struct):
    """The tests of one row, counted, and what they and the campaigns counted themselves."""

    tests: dict[str, int] = field(default_factory=dict)  # by outcome
    failed: list[str] = field(default_factory=list)
    counts: dict[str, int | float] = field(default_factory=dict)
    campaigns: list[Campaign] = field(default_factory=list)

    @property
    def passed(self) -> int:
        return self.tests.get("passed", 0)

    @property
    def is_shown(self) -> bool:
        """Something ran for it, and nothing of that failed."""
        campaigns = all(campaign.passed for campaign in self.campaigns)
        return self.passed > 0 and not self.failed and campaigns


class Results(Struct):
    """Everything that was run, and where."""

    date: str
    commit: str
    machine: str
    rows: dict[str, RowResult] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> "Results":
        return convert(json.loads(file.read_text()), cls)

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(to_builtins(self), indent=1, sort_keys=True) + "\n")

    def of(self, row: str) -> RowResult:
        return self.rows.setdefault(row, RowResult())

    def add_tests(self, report: Path) -> None:
        """Add the tests of a JUnit file whose names say which row they are of.

        Raises:
            ParseError: it is no XML.
        """
        for case in ElementTree.parse(report).iter("testcase"):
            found = _TEST.match(case.get("name", ""))
            if found is None:
                continue
            result = self.of(f"{found[1].upper()}-{found[2]}")
            outcome = _outcome(case)
            result.tests[outcome] = result.tests.get(outcome, 0) + 1
            if outcome == "failed":
                result.failed.append(case.get("name", ""))
            result.counts = _sum(result.counts, _properties(case))

    def add_campaigns(self, lines: Iterable[str]) -> None:
        """Add what campaigns have recorded."""
        for line in lines:
            campaign = convert(json.loads(line), Campaign)
            self.of(campaign.row).campaigns.append(campaign)

    def missing(self, rows: Iterable[Row]) -> list[str]:
        """What keeps the matrix from being whole: rows that show nothing, or a failure."""
        problems = []
        for row in rows:
            result = self.of(row.id)
            bad = [*result.failed, *(c.command for c in result.campaigns if not c.passed)]
            problems += [f"{row.id}: {name} failed" for name in bad]
            if not row.waits and not result.passed and not bad:
                problems.append(f"{row.id}: no test of it has passed")
        return problems


def rows() -> list[Row]:
    """The rows of the matrix, in its order."""
    return convert(tomllib.loads(ROWS.read_text())["row"], list[Row])


def _outcome(case: ElementTree.Element) -> str:
    return next((_NOT_PASSED[child.tag] for child in case if child.tag in _NOT_PASSED), "passed")


def _properties(case: ElementTree.Element) -> dict[str, int | float]:
    """The numbers that a test has counted with pytest's `record_property`."""
    found: dict[str, int | float] = {}
    for item in case.iter("property"):
        number = _number(item.get("value", ""))
        if number is not None:
            found[item.get("name", "")] = number
    return found


def _number(text: str) -> int | float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else number


def _sum(one: dict[str, int | float], other: dict[str, int | float]) -> dict[str, int | float]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}
