"""Work in threads, and what becomes of it when its caller is cancelled."""

import asyncio
import threading

import pytest

from engine.stores.threads import to_its_end


async def test_who_is_cancelled_waits_for_the_thread_that_uses_his_things() -> None:
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        may_end.wait(10)
        ended.set()

    async with asyncio.TaskGroup() as group:
        caller = group.create_task(to_its_end(work))
        await asyncio.to_thread(began.wait, 10)
        for _ in range(3):  # whoever is impatient, and however often
            caller.cancel()
            for _ in range(10):
                await asyncio.sleep(0)
        assert not caller.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await caller
    assert ended.is_set()
