"""Whether a failed attempt is followed by another. Pure, and no state: one function of the facts.

User code runs at most 1 + `times` times. A step with @catch is then given a few attempts more that
run none of it: they only commit the failure, for a process that died could not do so itself.
"""

from msgspec import Struct

from engine.flow.graph import Node

MAX_FALLBACKS = 3
"""As Metaflow does: its `@catch` has three fallback attempts after the last user attempt."""


class Again(Struct, frozen=True):
    """Try again after `delay_s` seconds; `is_fallback` runs only the step's @catch."""

    delay_s: float
    is_fallback: bool = False


def after_failure(node: Node, *, attempt: int, fallbacks: int, retryable: bool) -> Again | None:
    """Say what follows a failure; None when nothing does.

    Args:
        node: the step of the task.
        attempt: the number of the attempt that failed, from 0.
        fallbacks: how many of the attempts so far were fallbacks, this one included.
        retryable: whether the failure may go away by itself.
    """
    if fallbacks:
        return Again(0.0, is_fallback=True) if retryable and fallbacks < MAX_FALLBACKS else None
    if retryable and attempt < node.retry.times:
        return Again(node.retry.delay_s)
    return Again(0.0, is_fallback=True) if node.catches else None


def is_last_attempt(node: Node, attempt: int) -> bool:
    """Tell whether no user attempt can follow `attempt`."""
    return attempt >= node.retry.times
