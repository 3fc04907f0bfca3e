"""What a workload yields: figures beside their floor and their peer, and if a target is met."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Figure:
    """One quantity, measured several times. `note` tells what differs from the other columns."""

    values: tuple[float, ...]
    note: str = ""

    @property
    def median(self) -> float:
        return median(self.values)

    @classmethod
    def of(cls, values: Sequence[float], note: str = "") -> "Figure":
        return cls(tuple(values), note)


@dataclass(frozen=True)
class Row:
    """A line of the report. `unit` is "ms", "s", "bytes", "x" (a ratio) or "" (a count).

    `targets` are pairs: what was promised, and whether the medians keep it. `short` labels the row
    in a plot, where `workload` does not do.
    """

    workload: str
    figure: str
    unit: str
    ours: Figure
    floor: Figure | None = None
    peer: Figure | None = None
    targets: tuple[tuple[str, bool], ...] = ()
    short: str = ""

    def at_most_floor(self, times: float) -> tuple[str, bool]:
        assert self.floor
        return f"at most {times:g} x floor", self.ours.median <= times * self.floor.median

    def at_most(self, limit: float, text: str) -> tuple[str, bool]:
        return f"at most {text}", self.ours.median <= limit
