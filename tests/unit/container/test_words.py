"""What a job says on its way to its driver: all of it, once."""

import asyncio
from collections.abc import Sequence

from engine.container.words import WORD_EVERY_S, Words, keys_of
from engine.executors.base import JobOutput
from engine.stores.base import Buffer
from engine.stores.memory import MemoryBlobStore
from engine.stores.remote.parcels import Ending, Word
from engine.testing import virtual_time


class SlowStore(MemoryBlobStore):
    """A put takes a second."""

    async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        await asyncio.sleep(1.0)
        return await super().put(key, parts, if_absent=if_absent)


def test_a_task_that_ends_while_lines_are_being_put_loses_none_and_repeats_none() -> None:
    async def scenario() -> list[str]:
        blobs = SlowStore()
        words = Words(blobs, "job", keys_of("F", "run", "job", "place"), lambda: 1)
        async with asyncio.TaskGroup() as group:
            group.create_task(words.run())
            await words.take(JobOutput("job", "stdout", ((1, "first"),)))
            await asyncio.sleep(WORD_EVERY_S + 0.5)  # it is on its way
            await words.take(JobOutput("job", "stdout", ((2, "second"),)))
            words.stop()
        await words.end(Ending("returned", 0, "", 1, 2, None))
        keys = sorted([info.key async for info in blobs.list()])
        said = [Word.unpack(await blobs.get(key)) for key in keys]
        return [text for word in said for _, lines in word.lines for _, text in lines]

    assert virtual_time.run(scenario()) == ["first", "second"]
