"""What the ends of a gang's tasks come to: kept back until that is known. Pure.

The journal has commits of all of a gang's tasks or of none. So nothing is committed of it before
all of it can be, and when one has failed, what others had done by then is given up.

When one has failed, the others are ended, and what broke the gang is told when all have: it may be
that who failed first only lost a peer, whose own failure is still on its way.
"""

from collections.abc import Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from engine.errors import Failure, TaskCancelledError
from engine.flow.graph import Graph
from engine.ids import TaskKey
from engine.scheduler.blame import cause
from engine.scheduler.commands import CancelTask
from engine.scheduler.flights import Ended
from engine.scheduler.gangs import leader, member


class _Waiting(Struct):
    """Ends of one attempt at a gang. `said` is why the others were ended, once they were."""

    held: list[Ended] = field(default_factory=list)
    said: str | None = None


class Musters:
    """Keeps back how members ended, until all have."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._waiting: dict[tuple[TaskKey, int], _Waiting] = {}

    def take(self, ended: Ended) -> Sequence[Ended | CancelTask]:
        """Take in an end, and return those that are now certain, in the order to be told in: of a
        gang that broke the cause first. The first failure has the others end before."""
        node = self._graph.nodes.get(ended.task.step)
        if node is None or not node.is_parallel:
            return (ended,)
        at = leader(self._graph, ended.task), ended.attempt
        waiting = self._waiting.setdefault(at, _Waiting())
        waiting.held.append(ended)
        size = ended.task.frames[-1].total
        if len(waiting.held) == size:
            del self._waiting[at]
            return _settled(waiting)
        if waiting.said is None and isinstance(ended.outcome, Failure):
            waiting.said = _why(ended, ended.outcome)
            gone = {held.task.frames[-1].index for held in waiting.held}
            others = (member(ended.task, i) for i in range(size) if i not in gone)
            return [CancelTask(other, ended.attempt, waiting.said) for other in others]
        return ()

    def clear(self) -> None:
        """Forget all: no more will be heard."""
        self._waiting.clear()


def _settled(waiting: _Waiting) -> list[Ended]:
    """What all of a gang has come to, once all of it has ended."""
    held = waiting.held
    failed = [(e, e.outcome) for e in held if isinstance(e.outcome, Failure)]
    if not failed:
        return sorted(held, key=lambda e: e.task)
    first, failure = failed[cause([(failure, e.ended_us) for e, failure in failed])]
    held.sort(key=lambda e: (e is not first, not isinstance(e.outcome, Failure), e.task))
    why = _why(first, failure)
    return [e if e is first else _given_up(e, waiting.said, why) for e in held]


def _why(ended: Ended, failure: Failure) -> str:
    return f"{ended.task} failed: {failure.summary}"


def _given_up(ended: Ended, said: str | None, why: str) -> Ended:
    """A member's end as it counts in a gang that broke: `said` was thought to be why, `why` is."""
    failure = ended.outcome
    if not isinstance(failure, Failure):
        message = f"given up with its gang, though it had ended well: {why}"
        failure = Failure(code=TaskCancelledError.code, message=message, retryable=False)
        return replace(ended, outcome=failure, head=None)
    if said is None or failure.code != TaskCancelledError.code:
        return ended
    return replace(ended, outcome=replace(failure, message=failure.message.replace(said, why)))
