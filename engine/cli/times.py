"""Instants and durations as people write and read them. Times are microseconds since 1970, UTC."""

import re
from datetime import UTC, datetime
from functools import lru_cache

from engine.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+\Z")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def parse_instant(text: str, *, now_us: int) -> int:
    """Read "90s", "2h30m", "7d" (ago), or a date or time of ISO 8601; no zone means local time.

    Raises:
        UsageError: it is none of these.
    """
    if _AGO.match(text):
        ago_s = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
        return now_us - int(ago_s * 1_000_000)
    try:
        return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1_000_000)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text!r} is neither a time nor a duration",
            hint="write 90s, 15m, 2h, 7d, 2026-07-28 or 2026-07-28T14:30:00Z",
        ) from error


def iso(at_us: int) -> str:
    """As JSON has it: UTC, milliseconds."""
    return f"{_iso_second(at_us // 1_000_000)}.{at_us // 1000 % 1000:03d}Z"


def clock(at_us: int) -> str:
    """As a line of output has it: local time, milliseconds."""
    return f"{_clock_second(at_us // 1_000_000)}.{at_us // 1000 % 1000:03d}"


# Formatting a date costs more than all else in a line, and lines come in bursts of one second.
@lru_cache(maxsize=64)
def _iso_second(at_s: int) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%S}"


@lru_cache(maxsize=64)
def _clock_second(at_s: int) -> str:
    return f"{datetime.fromtimestamp(at_s).astimezone():%Y-%m-%d %H:%M:%S}"


def age(at_us: int, *, now_us: int) -> str:
    """ "5 s ago", "3 h ago", or the date when it is more than a week."""
    past_s = max(0, now_us - at_us) // 1_000_000
    for below, unit, name in ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h")):
        if past_s < below:
            return f"{past_s // unit} {name} ago"
    if past_s < 7 * 86_400:
        return f"{past_s // 86_400} d ago"
    return f"{datetime.fromtimestamp(at_us // 1_000_000).astimezone():%Y-%m-%d}"


def duration(span_us: int) -> str:
    """Two figures that matter: "12 ms", "3.4 s", "5 min 20 s", "2 h 5 min", "3 d 4 h"."""
    if span_us < 1_000_000:
        return f"{max(0, span_us) // 1000} ms"
    if span_us < 60_000_000:
        return f"{span_us / 1_000_000:.1f} s"
    rest_s = span_us // 1_000_000
    for unit, name, below, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if rest_s >= unit:
            return f"{rest_s // unit} {name} {rest_s % unit // below} {smaller}"
    return f"{rest_s // 60} min {rest_s % 60} s"


def size(size_bytes: int) -> str:
    """ "12 B", "3.4 KiB", "5.0 GiB"."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    amount = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"
