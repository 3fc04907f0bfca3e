"""Which of the failures of a gang's attempt is the cause, and which only follow from it. Pure.

One that fails takes a peer from the others. They notice at once, and what they raise, or that they
were ended, is often heard of before the cause is. So what tells is the kind of a failure first.
"""

import re
from enum import IntEnum

from engine.errors import Failure, TaskCancelledError, TaskFailedError
from engine.executors.base import NODE_ENDED

TOGETHER_US = 1_000_000
"""Failures within so many microseconds may be one cause and what follows, in whatever order.

A whole gang has one @timeout, so that of those who wait for each other the first to reach it breaks
the others in the very moment in which they would reach it, too.
"""

_OF_A_LOST_PEER = frozenset(
    (
        "BrokenPipeError",
        "ConnectionAbortedError",
        "ConnectionError",
        "ConnectionRefusedError",
        "ConnectionResetError",
        "DistBackendError",
        "DistNetworkError",
        "DistStoreError",
        "EOFError",
        "IncompleteReadError",
        "TimeoutError",
    )
)
"""Names of exceptions: built-in, of asyncio, and of torch.distributed."""
_SAYS_LOST_PEER = re.compile(
    r"\bpeers?\b|\bbroken pipe\b|\bremote process exited\b"
    r"|\b(connection|socket)\b.{0,40}\b(closed|reset|refused|aborted|lost|broken)\b",
    re.IGNORECASE,
)
"""What libraries say in exceptions of other types: gloo and NCCL in a RuntimeError."""


class Kind(IntEnum):
    """What a failure is of, the likeliest cause first."""

    OWN = 0  # a time-out, the end of its process, of its memory or of its machine
    RAISED = 1
    ENDED = 2  # with the other nodes of its job
    LOST_PEER = 3  # an exception that tells of a peer
    CANCELLED = 4

    @classmethod
    def of(cls, failure: Failure) -> "Kind":
        if failure.code == TaskCancelledError.code:
            return cls.CANCELLED
        if failure.code == NODE_ENDED:
            return cls.ENDED
        if failure.code != TaskFailedError.code:
            return cls.OWN
        name = failure.type.rpartition(".")[2]
        if name in _OF_A_LOST_PEER or _SAYS_LOST_PEER.search(failure.message):
            return cls.LOST_PEER
        return cls.RAISED


def cause(failures: "list[tuple[Failure, int]]") -> int:
    """Find the cause among failures of one attempt, each with when its task ended.

    Of failures of tasks' own the first one counts; what ended within TOGETHER_US of it is as good
    as at the same time, and the end of a process then counts before an exception.

    Args:
        failures: in the order they were heard of, at least one; times are microseconds since 1970.

    Returns:
        The cause's index.
    """
    kinds = [Kind.of(failure) for failure, _ in failures]
    is_own = [kind <= Kind.RAISED for kind in kinds]
    first_us = min((at for (_, at), own in zip(failures, is_own, strict=True) if own), default=0)

    def rank(index: int) -> tuple[bool, bool, Kind, int]:
        ended_us = failures[index][1]
        is_later = is_own[index] and ended_us > first_us + TOGETHER_US
        return not is_own[index], is_later, kinds[index], ended_us

    return min(range(len(failures)), key=rank)
