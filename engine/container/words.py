"""What a job says, on its way to its driver: gathered for a moment, then put as one object.

A word waits at most WORD_EVERY_S, or until a MiB has gathered: then whoever brings more waits for
the store, and so does the task that prints it. Without anything to say there is a word now and then
all the same, so that the driver sees that the container lives.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from engine.executors.base import JobOutput, JobStarted
from engine.stores.base import BlobStore
from engine.stores.remote.parcels import Ending, Word, word_key

WORD_EVERY_S = 2.0
ALIVE_EVERY_S = 30.0
WORD_MAX_BYTES = 1 << 20
_LINE_COST_BYTES = 16

KeyOf = Callable[[int | None], str]


class Words:
    """Says what one job has to say, in order. `run` is to be run beside `take`.

    Args:
        blobs: the object store.
        name: the job's.
        key_of: the key of a word, by its number; of the last one by None.
        clock: microseconds since 1970, UTC.
    """

    def __init__(
        self, blobs: BlobStore, name: str, key_of: KeyOf, clock: Callable[[], int]
    ) -> None:
        self._blobs = blobs
        self._name = name
        self._key_of = key_of
        self._clock = clock
        self._sequence = 0
        self._lines: list[tuple[str, tuple[tuple[int, str], ...]]] = []
        self._size_bytes = 0
        self._pid: int | None = None
        self._putting = asyncio.Lock()
        self._stopped = asyncio.Event()

    async def take(self, update: JobStarted | JobOutput) -> None:
        """Note what happened; waits for the store if much has gathered."""
        if isinstance(update, JobStarted):
            self._pid = update.pid or 0
            return
        self._lines.append((update.stream, update.lines))
        self._size_bytes += sum(len(text) + _LINE_COST_BYTES for _, text in update.lines)
        if self._size_bytes >= WORD_MAX_BYTES:
            await self.flush()

    async def run(self) -> None:
        """Say what has gathered, again and again, until `stop`."""
        quiet_s = 0.0
        while not await self._is_stopped_within(WORD_EVERY_S):
            quiet_s += WORD_EVERY_S
            if self._lines or self._pid is not None or quiet_s >= ALIVE_EVERY_S:
                await self.flush()
                quiet_s = 0.0

    def stop(self) -> None:
        """Have `run` end. It is not to be cancelled: what it is about to put would be lost."""
        self._stopped.set()

    async def _is_stopped_within(self, wait_s: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._stopped.wait()
        return self._stopped.is_set()

    async def flush(self) -> None:
        """Say what has gathered.

        Raises:
            StoreError: the store does not take it.
        """
        async with self._putting:
            lines, pid = self._taken()
            word = Word(self._name, self._clock(), lines, pid)
            await self._blobs.put(self._key_of(self._sequence), (word.pack(),))
            self._sequence += 1

    async def end(self, ending: Ending) -> None:
        """Say the last word.

        Raises:
            StoreError: the store does not take it.
        """
        async with self._putting:
            lines, pid = self._taken()
            word = Word(self._name, self._clock(), lines, pid, ending)
            await self._blobs.put(self._key_of(None), (word.pack(),))

    def _taken(self) -> tuple[list[tuple[str, tuple[tuple[int, str], ...]]], int | None]:
        lines, self._lines, self._size_bytes = self._lines, [], 0
        pid, self._pid = self._pid, None
        return lines, pid


def keys_of(flow: str, run_id: str, name: str, place: str) -> KeyOf:
    """The keys of one container's words."""
    return lambda sequence: word_key(flow, run_id, name, place, sequence)
