"""Plain tables on stdout: columns lined up, no lines, cut to the terminal and never to a pipe."""

import shutil
from collections.abc import Iterable, Iterator, Sequence

from engine.cli.escapes import safe

_PAGE = 200  # rows whose widths are looked at together, so that a long list starts at once


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None = None
) -> Iterator[str]:
    """Lay out rows below `head`, page by page.

    Args:
        head: the columns' names.
        rows: as many texts as `head` has; an iterator is read by pages.
        width: characters a line may have; None for any number.
    """
    widths = [len(name) for name in head]
    page: list[Sequence[str]] = []
    first = True
    for row in rows:
        page.append([safe(cell) for cell in row])
        if len(page) == _PAGE:
            yield from _lines(head if first else None, page, widths, width)
            page, first = [], False
    if page or first:
        yield from _lines(head if first else None, page, widths, width)


def _lines(
    head: Sequence[str] | None,
    page: list[Sequence[str]],
    widths: list[int],
    width: int | None,
) -> Iterator[str]:
    for row in page:
        for column, cell in enumerate(row):
            widths[column] = max(widths[column], len(cell))
    for row in [head, *page] if head else page:
        cells = (cell.ljust(w) for cell, w in zip(row, widths, strict=True))
        line = "  ".join(cells).rstrip()
        yield line if width is None or len(line) <= width else line[: width - 1] + "…"


def terminal_width(*, is_tty: bool) -> int | None:
    """The width to cut lines to; None for a pipe."""
    return shutil.get_terminal_size().columns if is_tty else None
