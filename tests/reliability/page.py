"""The matrix of docs/RELIABILITY.md, drawn from results. Its other text is written by hand."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.reliability.results import Results, Row, RowResult

PAGE = Path(__file__).parents[2] / "docs" / "RELIABILITY.md"
OPENING, CLOSING = "<!-- generated: matrix -->\n", "<!-- end -->"


def drawn(page: str, rows: list[Row], results: Results) -> str:
    """The page with its matrix as the results have it.

    Raises:
        ValueError: the page has no place for it, or more than one.
    """
    if page.count(OPENING) != 1:
        raise ValueError(f"the page has {page.count(OPENING)} places for the matrix, not one")
    before, rest = page.split(OPENING)
    text = "\n".join(_matrix(rows, results))
    return f"{before}{OPENING}{text}\n{CLOSING}{rest.partition(CLOSING)[2]}"


def _matrix(rows: list[Row], results: Results) -> Iterator[str]:
    shown = [results.of(row.id) for row in rows if results.of(row.id).is_shown]
    passed = sum(result.passed for result in shown)
    campaigns = sum(len(result.campaigns) for result in shown)
    yield (
        f"{results.date}, commit {results.commit}, {results.machine}: {len(shown)} of {len(rows)} "
        f"rows shown by {passed:,} tests and {campaigns} campaigns."
    )
    yield ""
    yield "| row | fault | bar | what was run | |"
    yield "|---|---|---|---|---|"
    for row in rows:
        said, mark = _said(row, results.of(row.id))
        yield f"| {' | '.join(_cell(text) for text in (row.id, row.fault, row.bar, said, mark))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _said(row: Row, result: RowResult) -> tuple[str, str]:
    parts = []
    if result.tests:
        total = sum(result.tests.values())
        skipped = result.tests.get("skipped", 0)
        part = f"{result.passed:,} of {total:,} tests passed"
        part += f", {skipped} skipped" if skipped else ""
        parts.append(f"{part} ({_counted(result.counts)})" if result.counts else part)
    parts += [f"`{c.command}`: {c.said or _counted(c.counts)}" for c in result.campaigns]
    if not parts:
        return (f"waits for {row.waits}", "") if row.waits else ("nothing", "**not shown**")
    return "; ".join(parts), "ok" if result.is_shown else "**failed**"


def _counted(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in counts.items())
