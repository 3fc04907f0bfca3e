"""What the ends of a gang's tasks come to: kept back until that is known. Pure.

The journal has commits of all of a gang's tasks or of none. So nothing is committed of it before
all of it can be, and when one has failed, what others had done by then is given up.
"""

from collections.abc import Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from engine.errors import Failure, TaskCancelledError
from engine.flow.graph import Graph
from engine.ids import TaskKey
from engine.scheduler.flights import Ended
from engine.scheduler.gangs import leader


class _Waiting(Struct):
    """Ends of one attempt at a gang."""

    held: list[Ended] = field(default_factory=list)
    told: int = 0
    cause: str | None = None


class Musters:
    """Keeps back how members ended, until all have, or until one has failed."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._waiting: dict[tuple[TaskKey, int], _Waiting] = {}

    def take(self, ended: Ended) -> Sequence[Ended]:
        """Take in an end, and return those that are now certain, in the order to be told in."""
        node = self._graph.nodes.get(ended.task.step)
        if node is None or not node.is_parallel:
            return (ended,)
        at = leader(self._graph, ended.task), ended.attempt
        waiting = self._waiting.setdefault(at, _Waiting())
        if waiting.cause is None and isinstance(ended.outcome, Failure):
            waiting.cause = f"{ended.task} failed: {ended.outcome.summary}"
        waiting.held.append(ended)
        size = ended.task.frames[-1].total
        if waiting.cause is None and len(waiting.held) < size:
            return ()
        # The one that failed first: it is why the others are given up.
        waiting.held.sort(key=lambda e: (not isinstance(e.outcome, Failure), e.task))
        certain = [_given_up(e, waiting.cause) for e in waiting.held]
        waiting.told += len(certain)
        waiting.held.clear()
        if waiting.told == size:
            del self._waiting[at]
        return certain

    def clear(self) -> None:
        """Forget all: no more will be heard."""
        self._waiting.clear()


def _given_up(ended: Ended, cause: str | None) -> Ended:
    """A member's end as it counts, if its gang broke because of `cause`."""
    if cause is None or isinstance(ended.outcome, Failure):
        return ended
    failure = Failure(
        code=TaskCancelledError.code,
        message=f"given up with its gang, though it had ended well: {cause}",
        retryable=False,
    )
    return replace(ended, outcome=failure, head=None)
