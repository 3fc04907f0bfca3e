"""The picture of a run on a terminal: a table of steps that is drawn over, below what tasks print.

Lines go out raw and the table is drawn by rich into a string, at most ten times a second, so tasks
that print much cost what they would cost without it. The table has as many rows as the screen
allows, whatever the number of tasks.
"""

import shutil
from io import StringIO
from typing import TYPE_CHECKING

from engine.cli import times
from engine.cli.console import Console, Look, running_loop
from engine.cli.escapes import safe
from engine.cli.progress import StepCount, Tally
from engine.flow.graph import Graph
from engine.scheduler.progress import ResumePlanned, RunEvent, TaskAttemptFailed, TaskOutput

if TYPE_CHECKING:
    import asyncio

    from rich.text import Text

REDRAW_AFTER_S = 0.1
TICK_S = 1.0
FIRST_DRAW_AFTER_S = 0.3
"""A run that is over by then shows no table, and pays for no import of rich."""

_UP = "\x1b[{}A"
_ERASE_BELOW = "\r\x1b[J"
_CHROME_ROWS = 4  # head, totals, slowest, the prompt


class LiveConsole(Console):
    """A console that keeps a table at the bottom of the terminal."""

    def __init__(self, look: Look, graph: Graph | None = None) -> None:
        super().__init__(look, graph)
        self._height = 0
        self._timer: asyncio.TimerHandle | None = None
        self._changed = False
        self._over = False

    def observe(self, event: RunEvent) -> None:
        """Take one event; the table shows it at its next drawing."""
        super().observe(event)
        if not isinstance(event, TaskOutput):
            self._changed = True
        if not self._over:
            self._arm(REDRAW_AFTER_S if self._height else FIRST_DRAW_AFTER_S)

    def close(self) -> None:
        """Write what is pending and take the table away."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().close()

    def _arm(self, after_s: float) -> None:
        """Draw in `after_s` seconds, or earlier if that was going to be."""
        loop = running_loop()
        if loop is None:  # nothing would redraw
            return
        if self._timer is not None:
            if self._timer.when() <= loop.time() + after_s:
                return
            self._timer.cancel()
        self._timer = loop.call_later(after_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self._changed:  # nothing came: only the clock moves
            self.tally.now_us += int(TICK_S * 1_000_000)
        self._changed = False
        self._redraw()
        self._arm(TICK_S)

    def _change(self, event: RunEvent) -> None:
        """Only failures, and a plan, are worth lines of their own: the table counts the rest."""
        if isinstance(event, TaskAttemptFailed | ResumePlanned):
            super()._change(event)

    def _flush_soon(self) -> None:
        if not self._height:  # later, the next drawing writes them
            super()._flush_soon()

    def _flush(self) -> None:
        if self._height:
            self._redraw()
        else:
            super()._flush()

    def _redraw(self) -> None:
        """Take the table away, write the lines, draw the table again unless the run is over."""
        err = self.look.err
        if self._height:
            err.write(f"{_UP.format(self._height)}{_ERASE_BELOW}")
        self.look.out.flush()
        err.flush()
        picture = "" if self._over or self.look.quiet else draw(self.tally, color=err.color)
        self._height = picture.count("\n")
        if picture:
            err.write(picture)


def draw(tally: Tally, *, color: bool, screen: tuple[int, int] | None = None) -> str:
    """The table as text: failures first, then steps in the order of the source, then totals.

    Args:
        tally: what to show.
        color: whether to colour.
        screen: columns and rows; default: the terminal's.
    """
    from rich.console import Console as Painter
    from rich.table import Table

    columns, rows = screen or shutil.get_terminal_size()
    grid = Table.grid(padding=(0, 2))
    for justify in ("left", "left", "right", "left"):
        grid.add_column(justify=justify, no_wrap=True)
    begun = [(name, count) for name, count in tally.steps.items() if count.begun]
    begun.sort(key=lambda item: item[1].failed == 0)  # stable: the source's order otherwise
    room = max(1, rows - _CHROME_ROWS)
    for name, count in begun[:room]:
        grid.add_row(name, _bar(count), _counts(count), _notes(count))
    painter = Painter(
        file=StringIO(),
        width=columns - 1,
        force_terminal=color,
        no_color=not color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
    )
    with painter.capture() as capture:
        painter.print(grid)
        if len(begun) > room:
            painter.print(f"... and {len(begun) - room} more steps")
        painter.print(_totals(tally), no_wrap=True, overflow="ellipsis")
    return capture.get()


_BAR = 20


def _bar(count: StepCount) -> "Text":
    from rich.text import Text

    total = max(1, count.total)
    full = _BAR * count.done // total
    bad = -(-_BAR * count.failed // total)
    bar = Text("━" * min(full, _BAR - bad), style="green")
    bar.append("━" * bad, style="red")
    return bar.append("━" * (_BAR - len(bar)), style="bright_black")


def _counts(count: StepCount) -> str:
    return f"{count.done:,}/{count.total:,}"


def _notes(count: StepCount) -> "Text":
    from rich.text import Text

    notes = Text()
    if count.failed:
        notes.append(f"{count.failed:,} failed  ", style="bold red")
    if count.retried:
        notes.append(f"{count.retried:,} retried  ", style="yellow")
    if count.running:
        notes.append(f"{count.running:,} running  ")
    if count.reused:
        notes.append(f"{count.reused:,} reused  ", style="cyan")
    if count.slowest_us:
        notes.append(f"slowest {times.duration(count.slowest_us)} ({count.slowest})", style="dim")
    return notes


def _totals(tally: Tally) -> "Text":
    from rich.text import Text

    parts = [f"{tally.flow}/{tally.run_id}", f"{tally.done:,} done", f"{tally.running:,} running"]
    parts.append(times.duration(tally.now_us - tally.began_us))
    if (rate := tally.rate()) is not None:
        parts.append(f"{rate:,.1f} tasks/s" if rate < 100 else f"{rate:,.0f} tasks/s")
    if (eta_us := tally.eta_us()) is not None:
        parts.append(f"about {times.duration(eta_us)} left")
    text = Text(" · ".join(parts), style="bold")
    slowest = tally.slowest_running()
    if slowest and slowest[1] >= 5_000_000:
        text.append(f"\nlongest: {safe(str(slowest[0]))} {times.duration(slowest[1])}", style="dim")
    return text
