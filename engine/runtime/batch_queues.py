"""The queues of a run, each looked at once in a few minutes: its state, its machines."""

import time
from collections.abc import Awaitable, Callable, Sequence

from engine.aws.machines import instance_sizes
from engine.aws.sessions import AwsSession
from engine.executors.batch_client import BatchClient
from engine.executors.batch_errors import BatchSettingError
from engine.executors.batch_requests import Needs
from engine.executors.batch_waiting import (
    Environment,
    Machine,
    Queue,
    Why,
    Wire,
    environment_names,
    machine_patterns,
    read_environment,
    read_queue,
    why_waiting,
)

LOOK_S = 180.0
"""How long a look holds: DescribeJobQueues and DescribeComputeEnvironments once in so many
seconds."""

Sizes = Callable[[Sequence[str]], Awaitable[Sequence[Machine] | None]]


def sizes_of(session: AwsSession) -> Sizes:
    """What EC2 says of instance types, by patterns of their names."""

    async def sizes(patterns: Sequence[str]) -> Sequence[Machine] | None:
        found = await instance_sizes(session, patterns)
        return None if found is None else [Machine(*each) for each in found]

    return sizes


class QueueScout:
    """Looks at queues.

    Args:
        client: speaks to Batch.
        sizes: what instance types have.
        clock: seconds, monotonic.
    """

    def __init__(
        self, client: BatchClient, sizes: Sizes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._sizes = sizes
        self._clock = clock
        self._seen: dict[str, tuple[float, Queue]] = {}
        self._machines: dict[tuple[str, ...], Sequence[Machine] | None] = {}
        self._only = ""

    async def only_queue(self) -> str:
        """The queue that there is.

        Raises:
            BatchSettingError: there is none, or there are several.
        """
        if not self._only:
            usable = [q for q in await self._client.queues() if read_queue(q, ()).is_usable]
            if len(usable) != 1:
                names = ", ".join(q["jobQueueName"] for q in usable)
                told = f"there are {len(usable)} job queues" if usable else "there is no job queue"
                raise BatchSettingError(
                    f"{told} that take jobs{f': {names}' if names else ''}",
                    hint="name one: @batch(queue=...), or the setting batch_queue "
                    "(AFLOW_BATCH_QUEUE)",
                )
            self._only = usable[0]["jobQueueName"]
        return self._only

    async def look(self, name: str) -> Queue:
        """A queue as it is now, or was at the last look.

        Raises:
            BatchSettingError: there is none of that name.
            ExecutorError: Batch does not answer.
        """
        looked_s, queue = self._seen.get(name, (float("-inf"), Queue(name)))
        if self._clock() - looked_s < LOOK_S:
            return queue
        queue = await self._look(name)
        self._seen[name] = self._clock(), queue
        return queue

    async def why(self, needs: Needs, told: str) -> Why:
        """Why a job waits for a machine; `told` is what Batch says of it.

        Raises:
            ExecutorError: Batch does not answer.
        """
        return why_waiting(needs, await self.look(needs.queue), told)

    async def _look(self, name: str) -> Queue:
        found = await self._client.queues([name])
        if not found:
            known = ", ".join(sorted(q["jobQueueName"] for q in await self._client.queues()))
            raise BatchSettingError(
                f"there is no job queue {name!r}",
                hint=f"there are {known}" if known else "there is none in this region and account",
            )
        names = environment_names(found[0])
        environments = await self._client.environments(names) if names else []
        return read_queue(found[0], [await self._environment(each) for each in environments])

    async def _environment(self, wire: Wire) -> Environment:
        patterns = tuple(machine_patterns(wire))
        if patterns and patterns not in self._machines:
            self._machines[patterns] = await self._sizes(patterns)
        return read_environment(wire, self._machines.get(patterns))
