"""The time that a run tells: of the wall when it begins, and from then on as much as has passed.

A wall clock may be set by a day in the middle of a run (FAULTS R-10). If each time were read from
it, tasks would end before they began. So it is read once, and a run's durations are always right,
also where its dates are as wrong as the clock was when it began.
"""

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Microseconds."""


_PASSING: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def wall_us() -> int:
    """Microseconds since 1970, UTC, as the machine has it; may jump."""
    return time.time_ns() // 1000


def passed_us() -> int:
    """Microseconds since some instant; never goes back. A sleep of the machine counts, on Linux."""
    return time.clock_gettime_ns(_PASSING) // 1000


class Clocks:
    """The two clocks of a machine, and what a run makes of them.

    Args:
        wall: microseconds since 1970, UTC; may jump.
        passed: microseconds since some instant; never goes back.
    """

    def __init__(self, wall: Clock = wall_us, passed: Clock = passed_us) -> None:
        self.wall = wall
        self._passed = passed

    def steady(self, now_us: int) -> Clock:
        """A clock that says `now_us` now and never jumps."""
        passed = self._passed
        began_us = now_us - passed()
        return lambda: began_us + passed()
