"""How a file that only grows is kept as objects, which do not. Pure.

Each object holds a stretch of the file and is named by the offset at which it begins, so the name
of the next one is known to nobody but who has written all before it: a conditional put of that name
is the fence that keeps a second writer out. Small objects are merged by overwriting the first of
them with all their bytes; the others stay, so that their names stay taken. A reader takes the
fewest objects that cover what it wants: 15 of each level at most.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

MERGE_COUNT = 16
MERGE_MAX_BYTES = 16 << 20
"""A merge rewrites what it merges; a larger object is worth a request of its own to a reader."""

_DIGITS = 16


class Segment(Struct, frozen=True):
    """The bytes of a file from `start` to `end`."""

    start: int
    size_bytes: int

    @property
    def end(self) -> int:
        return self.start + self.size_bytes


def segment_name(start: int) -> str:
    """The last part of a segment's key. Names sort as the offsets do."""
    return f"{start:0{_DIGITS}d}"


def segment_start(name: str) -> int | None:
    """The offset in a segment's name; None if it is no such name."""
    return int(name) if len(name) == _DIGITS and name.isdecimal() and name.isascii() else None


def cover(segments: Iterable[Segment], start: int = 0) -> list[Segment]:
    """The fewest segments that hold the file from `start` as far as it goes without a gap.

    They are in order and may overlap: what a segment has in front of the end of the one before it
    is to be skipped.
    """
    chosen: list[Segment] = []
    end, best = start, None
    for segment in sorted(segments, key=lambda s: s.start):
        if segment.start > end:
            if best is None:
                break
            chosen.append(best)
            end, best = best.end, None
            if segment.start > end:
                break
        if segment.end > (best.end if best else end):
            best = segment
    if best is not None:
        chosen.append(best)
    return chosen


def extent(segments: Iterable[Segment]) -> int:
    """How far a file's segments reach without a gap, in bytes."""
    chosen = cover(segments)
    return chosen[-1].end if chosen else 0


def gap_in(segments: Sequence[Segment]) -> int | None:
    """Where bytes are missing that a later segment follows; None if there is no such place."""
    end = extent(segments)
    return end if any(segment.end > end for segment in segments) else None


class Merging:
    """Decides which segments one writer merges. Holds at most 16 for each level."""

    def __init__(self) -> None:
        self._tail: list[tuple[int, Segment]] = []  # of the file's end: level and segment

    def add(self, segment: Segment) -> Segment | None:
        """Take note of a segment that was put; return the one to put over others, if any."""
        self._tail.append((0, segment))
        merged: Segment | None = None
        while joined := self._joined():
            level = self._tail[-1][0]
            del self._tail[-MERGE_COUNT:]
            self._tail.append((level + 1, joined))
            merged = joined
        return merged

    @property
    def count(self) -> int:
        """How many segments a reader of the tail needs."""
        return len(self._tail)

    def _joined(self) -> Segment | None:
        last = self._tail[-MERGE_COUNT:]
        if len(last) < MERGE_COUNT or last[0][0] != last[-1][0]:
            return None
        start = last[0][1].start
        size = last[-1][1].end - start
        return Segment(start, size) if size <= MERGE_MAX_BYTES else None
