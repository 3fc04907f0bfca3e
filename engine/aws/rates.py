"""How often a service may be called: one token bucket for each, shared by the whole process.

It knows no loop: it says how long to wait, and the caller waits. After the service has asked for
fewer calls it gives out half as many, and grows back by one call per second with each minute.
"""

import threading
import time
from collections.abc import Callable


class TokenBucket:
    """Gives out `rate_s` calls a second, and `burst` at once after a rest.

    Args:
        rate_s: calls per second, above 0.
        burst: calls that may come at once.
        clock: seconds that only grow.
    """

    def __init__(
        self, rate_s: float, burst: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = rate_s
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()  # runs may live in several loops
        self.rate_s = rate_s
        self._left = burst
        self._at_s = clock()
        self.taken = 0

    def take(self) -> float:
        """Take one call and return how many seconds to wait before it is made."""
        with self._lock:
            self._refill()
            self._left -= 1
            self.taken += 1
            return max(0.0, -self._left / self.rate_s)

    def slow_down(self) -> None:
        """The service has asked for fewer calls."""
        with self._lock:
            self._refill()
            self.rate_s = max(self._most / 16, self.rate_s / 2)
            self._left = min(self._left, 0.0)

    def _refill(self) -> None:
        now_s = self._clock()
        passed_s, self._at_s = now_s - self._at_s, now_s
        self.rate_s = min(self._most, self.rate_s + passed_s / 60)
        self._left = min(self._burst, self._left + passed_s * self.rate_s)


_buckets: dict[str, TokenBucket] = {}


def bucket_of(service: str, rate_s: float, burst: float) -> TokenBucket:
    """The one bucket of a service in this process; the first who asks says how large it is."""
    return _buckets.setdefault(service, TokenBucket(rate_s, burst))
