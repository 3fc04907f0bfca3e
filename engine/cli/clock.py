"""The command line's clock: what "2 h ago" is counted from."""

import time


def now_us() -> int:
    """Microseconds since 1970, UTC."""
    return time.time_ns() // 1000
