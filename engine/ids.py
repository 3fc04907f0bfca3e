"""Names: runs, tasks, pathspecs, and what may be part of a path. Pure values; no I/O."""

import re
from collections.abc import Iterable
from typing import NewType, Self

from msgspec import Struct

from engine.errors import UnsafeNameError, UsageError

RunId = NewType("RunId", str)

SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # sorts as it counts; no I, L, O, U to misread
_RUN_ID = re.compile(f"[{_CROCKFORD}]{{16}}\\Z")

CLOCK_AHEAD_MAX_MS = 7 * 86_400_000
"""How far a clock is believed to be set back; R-10 asks for a day."""


def is_safe_name(name: str) -> bool:
    """Whether `name` can be a part of a path on any store."""
    return SAFE_NAME.match(name) is not None and ".." not in name


def safe_name(name: str, *, what: str) -> str:
    """Return `name` if it can be a part of a path on any store; raise UnsafeNameError otherwise."""
    if is_safe_name(name):
        return name
    raise UnsafeNameError(what, name, problem="is not a safe name" if name else "is empty")


def new_run_id(now_ms: int, entropy: int) -> RunId:
    """Make a run id: 10 characters of time (ms since 1970), 6 of chance; sorts by time.

    Args:
        now_ms: milliseconds since 1970, 0 to 2**50 - 1.
        entropy: any integer; its low 30 bits are used.
    """
    number = (now_ms << 30) | (entropy & (2**30 - 1))
    return RunId("".join(_CROCKFORD[(number >> shift) & 31] for shift in range(75, -1, -5)))


def run_id_ms(run_id: str) -> int | None:
    """The time in a run id, in ms since 1970; None if it is no id that `new_run_id` made."""
    if not _RUN_ID.match(run_id):
        return None
    number = 0
    for character in run_id[:10]:
        number = number << 5 | _CROCKFORD.index(character)
    return number


def next_run_us(now_us: int, run_ids: Iterable[str]) -> int:
    """When a run begins that follows `run_ids`: now, or just after the latest of them.

    So runs are in the order in which they were made, although the clock was set back meanwhile. An
    id that is more than CLOCK_AHEAD_MAX_MS ahead does not count: its clock was wrong beyond that,
    and to have dates that are right is then worth more.
    """
    now_ms = now_us // 1000
    ahead: list[int] = []  # ids beyond belief; they must not be met
    for run_id in sorted(run_ids, reverse=True):  # they sort by time, so one is read, mostly
        ms = run_id_ms(run_id)
        if ms is None:
            continue
        if ms - now_ms > CLOCK_AHEAD_MAX_MS:
            ahead.append(ms)
        elif ms < now_ms:
            return now_us
        else:
            while ms + 1 in ahead:
                ms += 1
            return (ms + 1) * 1000
    return now_us


class Frame(Struct, frozen=True, order=True, array_like=True):
    """One level of fan-out: child `index` of `total`, opened by visit `visit` of `split`.

    `is_foreach` tells a foreach level, whose index is part of the task id, from a static branch.
    Its fields stand in the order of docs/FORMATS.md: a frame is an array there.
    """

    split: str
    index: int
    total: int
    visit: int = 0
    is_foreach: bool = True


class TaskKey(Struct, frozen=True, order=True):
    """Identity of a task inside its run; equal across runs that took the same path.

    `visit` counts repeated entries into a step inside the same frames (recursion), from 0.
    """

    step: str
    frames: tuple[Frame, ...] = ()
    visit: int = 0

    @property
    def task_id(self) -> str:
        """The foreach indices, outermost first, joined by dots; "0" outside of any foreach."""
        path = ".".join(str(f.index) for f in self.frames if f.is_foreach) or "0"
        return f"{path}-{self.visit}" if self.visit else path

    def __str__(self) -> str:
        return f"{self.step}/{self.task_id}"


class Pathspec(Struct, frozen=True):
    """`Flow[/run[/step[/task[/artifact]]]]`, each part a safe name."""

    flow: str
    run: str | None = None
    step: str | None = None
    task: str | None = None
    artifact: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pathspec.

        Raises:
            UnsafeNameError: a part is not a safe name.
            UsageError: there are more than five parts.
        """
        parts = text.split("/")
        kinds = ("flow", "run", "step", "task", "artifact")
        if len(parts) > len(kinds):
            raise UsageError(
                f"{text!r} has {len(parts)} parts", hint="Flow/run/step/task/artifact is the most"
            )
        return cls(*(safe_name(p, what=k) for p, k in zip(parts, kinds, strict=False)))

    def __str__(self) -> str:
        parts = (self.flow, self.run, self.step, self.task, self.artifact)
        return "/".join(p for p in parts if p is not None)
