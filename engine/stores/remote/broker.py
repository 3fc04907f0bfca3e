"""Serves the processes of tasks that lack a blob; see ask.py for the other end."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from engine.errors import BlobNotFoundError, StoreError
from engine.stores.remote.ask import FAILED, FOUND, LINE_MAX_BYTES, MISSING

Fetch = Callable[[str], Awaitable[None]]
"""Brings a blob into the cache; raises BlobNotFoundError or another StoreError."""


@asynccontextmanager
async def broker(fetch: Fetch) -> AsyncIterator[str]:
    """Answer while this block lasts; yields the path of the socket."""
    folder = tempfile.mkdtemp(prefix="aflow-")  # mode 0700; short, for a socket's path is
    path = os.path.join(folder, "blobs")
    calls: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # the server makes one for each connection
        calls.add(task)
        try:
            digest = (await reader.readline()).decode("ascii", "replace").strip()
            writer.write(await _outcome(fetch, digest) + b"\n")
            await writer.drain()
        except ConnectionError:
            pass  # the task has ended meanwhile
        finally:
            calls.discard(task)
            writer.close()

    try:
        server = await asyncio.start_unix_server(answer, path, limit=LINE_MAX_BYTES)
        try:
            yield path
        finally:
            server.close()
            for call in calls:
                call.cancel()
            if calls:
                await asyncio.wait(calls)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _outcome(fetch: Fetch, digest: str) -> bytes:
    try:
        await fetch(digest)
    except BlobNotFoundError:
        return MISSING
    except StoreError as error:
        return FAILED + error.message.replace("\n", " ").encode()[: LINE_MAX_BYTES // 2]
    return FOUND
