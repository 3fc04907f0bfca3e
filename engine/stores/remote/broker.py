"""Serves the processes of tasks that lack a blob; see ask.py for the other end."""

import asyncio
import glob
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from engine.errors import BlobNotFoundError, StoreError
from engine.stores.remote.ask import FAILED, FOUND, LINE_MAX_BYTES, MISSING

PREFIX, SOCKET = "aflow-blobs-", "s"
PATH_MAX_BYTES = 60
"""A socket's path has room for about 100 bytes, names included."""

STARTING_S = 60.0
"""Far more than passes between the making of a socket and the first look at it."""

Fetch = Callable[[str], Awaitable[None]]
"""Brings a blob into the cache; raises BlobNotFoundError or another StoreError."""


@asynccontextmanager
async def broker(fetch: Fetch) -> AsyncIterator[str]:
    """Answer while this block lasts; yields the path of the socket."""
    folder = tempfile.mkdtemp(prefix=PREFIX, dir=_folder())  # mode 0700
    _sweep(os.stat(folder).st_mtime)
    path = os.path.join(folder, SOCKET)
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


def _folder() -> str:
    chosen = tempfile.gettempdir()
    return chosen if len(os.fsencode(chosen)) <= PATH_MAX_BYTES else "/tmp"


def _sweep(now_s: float) -> None:
    """Remove what killed drivers of this user left: sockets that nobody listens at.

    Args:
        now_s: by the clock of the file system.
    """
    for folder in glob.glob(os.path.join(glob.escape(_folder()), f"{PREFIX}*")):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as caller:
            caller.setblocking(False)
            try:
                caller.connect(os.path.join(folder, SOCKET))
            except ConnectionRefusedError:
                if now_s - os.stat(folder).st_mtime > STARTING_S:
                    shutil.rmtree(folder)
