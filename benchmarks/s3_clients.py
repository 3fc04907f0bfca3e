"""Ways to S3, each the way its users would take: moves one load one way, in a process of its own.

    python -m benchmarks.s3_clients CLIENT up|down TAG COUNT SIZE FOLDER

prints {"wall_s": ..., "cpu_s": ...} of the move alone. One small blob goes there and back before,
so imports, credentials and the first connection are not counted; s5cmd, which is a process for each
move, pays for its start. Whatever does not arrive whole is an error.
"""

import asyncio
import filecmp
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

KIB, MIB = 1 << 10, 1 << 20
BUCKET = "aflow-bench"
AT_ONCE = 64
THREADS = 16
FILE_MIN_BYTES = 64 * MIB
"""Smaller blobs are in memory, before and after; larger ones, and all of s5cmd's, are files."""


@dataclass(frozen=True)
class Move:
    """`keys` are the blobs, of `size` bytes each: all the same `body`, or `source`, then `target`.

    `source` is a file, or for many blobs a folder of one file a key; `target` is where they go.
    """

    keys: list[str]
    size: int
    body: bytes
    source: Path
    target: Path

    @property
    def is_file(self) -> bool:
        return self.size >= FILE_MIN_BYTES

    def check(self, body: bytes | bytearray | memoryview) -> None:
        if len(body) != self.size:
            raise SystemExit(f"{len(body):,} bytes came, of {self.size:,}")


class Client(Protocol):
    """A way to S3. Both move all of `move.keys`; `warm` is done before the clock runs."""

    async def up(self, move: Move) -> None: ...

    async def down(self, move: Move) -> None: ...


async def _each(keys: Iterable[str], work: Callable[[str], Awaitable[object]]) -> None:
    left = iter(keys)

    async def work_off() -> None:
        for key in left:
            await work(key)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work_off())


class Ours:
    def __init__(self, client: str) -> None:
        from engine.config import load
        from engine.stores.remote.uploads import SMALL_BYTES
        from engine.stores.s3.store import open_s3

        self._store = open_s3(f"s3://{BUCKET}", load({"s3_client": client}))
        self._small_bytes = SMALL_BYTES

    async def up(self, move: Move) -> None:
        if move.is_file:
            with move.source.open("rb") as source:
                await self._store.put_file(move.keys[0], source.fileno(), if_absent=True)
        else:  # as engine.stores.remote.uploads does
            is_asking = move.size > self._small_bytes
            await _each(
                move.keys, lambda key: self._store.put(key, (move.body,), if_absent=is_asking)
            )

    async def down(self, move: Move) -> None:
        async def get(key: str) -> None:
            move.check(await self._store.get(key))

        if move.is_file:
            with move.target.open("wb") as target:
                await self._store.get_to_file(move.keys[0], target.fileno())
        else:
            await _each(move.keys, get)


class Obstore:
    """With `is_asking` a small put asks for what our conditional ones do: a free key, and a
    writer."""

    def __init__(self, *, is_asking: bool = False) -> None:
        from obstore.store import S3Store

        self._store = S3Store(BUCKET, client_options={"allow_http": True})
        self._is_asking = is_asking

    async def up(self, move: Move) -> None:
        if self._is_asking and not move.is_file:
            await _each(move.keys, lambda key: self._ask(key, move.body))
            return
        source = move.source if move.is_file else move.body
        await _each(move.keys, lambda key: self._store.put_async(key, source))

    async def _ask(self, key: str, body: bytes) -> None:
        writer = {"aflow-writer": f"{os.getpid()}-{key}"}
        await self._store.put_async(key, body, attributes=writer, mode="create")

    async def down(self, move: Move) -> None:
        async def get(key: str) -> None:
            reply = await self._store.get_async(key)
            if not move.is_file:
                move.check(bytes(await reply.bytes_async()))
                return
            with move.target.open("wb") as target:
                async for piece in reply.stream(8 * MIB):
                    target.write(piece)

        await _each(move.keys, get)


class Aioboto3:
    def __init__(self) -> None:
        self._client: Any = None  # Any: made at run time

    async def _made(self) -> Any:  # Any: as above
        import aioboto3
        from botocore.config import Config

        if self._client is None:
            config = Config(max_pool_connections=AT_ONCE)
            self._client = await aioboto3.Session().client("s3", config=config).__aenter__()
        return self._client

    async def up(self, move: Move) -> None:
        client = await self._made()
        if move.is_file:
            await client.upload_file(str(move.source), BUCKET, move.keys[0])
        else:
            await _each(
                move.keys, lambda key: client.put_object(Bucket=BUCKET, Key=key, Body=move.body)
            )

    async def down(self, move: Move) -> None:
        client = await self._made()

        async def get(key: str) -> None:
            reply = await client.get_object(Bucket=BUCKET, Key=key)
            async with reply["Body"] as content:
                move.check(await content.read())

        if move.is_file:
            await client.download_file(BUCKET, move.keys[0], str(move.target))
        else:
            await _each(move.keys, get)


class Boto3Threads:
    def __init__(self) -> None:
        import boto3
        from botocore.config import Config

        self._client = boto3.client("s3", config=Config(max_pool_connections=THREADS))

    async def up(self, move: Move) -> None:
        def put(key: str) -> None:
            if move.is_file:
                self._client.upload_file(str(move.source), BUCKET, key)
            else:
                self._client.put_object(Bucket=BUCKET, Key=key, Body=move.body)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(put, move.keys))

    async def down(self, move: Move) -> None:
        def get(key: str) -> None:
            if move.is_file:
                self._client.download_file(BUCKET, key, str(move.target))
            else:
                move.check(self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(get, move.keys))


class S5cmd:
    """Knows files only: those of a folder go up by a wildcard and come down into a folder."""

    async def up(self, move: Move) -> None:
        if move.is_file:
            self._run(move.source, f"s3://{BUCKET}/{move.keys[0]}")
        else:
            self._run(f"{move.source}/*", f"s3://{BUCKET}/{Path(move.keys[0]).parent}/")

    async def down(self, move: Move) -> None:
        if move.is_file:
            self._run(f"s3://{BUCKET}/{move.keys[0]}", move.target)
            return
        self._run(f"s3://{BUCKET}/{Path(move.keys[0]).parent}/*", f"{move.target}/")
        for key in move.keys:
            if (move.target / Path(key).name).stat().st_size != move.size:
                raise SystemExit(f"s5cmd brought {key} in part")

    def _run(self, source: str | Path, target: str | Path) -> None:
        command = [os.environ["S5CMD"], "--log", "error", "cp", str(source), str(target)]
        subprocess.run(command, check=True)


CLIENTS: dict[str, Callable[[], Client]] = {
    "aflow": lambda: Ours("obstore"),
    "aflow by aioboto3": lambda: Ours("aioboto3"),
    "obstore": Obstore,
    "obstore, asking": lambda: Obstore(is_asking=True),
    "aioboto3": Aioboto3,
    "boto3, 16 threads": Boto3Threads,
    "s5cmd": S5cmd,
}


async def _warm(client: Client, tag: str) -> None:
    if not isinstance(client, S5cmd):
        one = Move([f"{tag}/warm-{os.getpid()}"], 1, b"x", Path(), Path())
        await client.up(one)
        await client.down(one)


async def _timed(client: Client, direction: str, move: Move) -> dict[str, float]:
    wall_s, cpu_s = time.perf_counter(), cpu_now_s()
    await (client.up if direction == "up" else client.down)(move)
    return {"wall_s": time.perf_counter() - wall_s, "cpu_s": cpu_now_s() - cpu_s}


def cpu_now_s() -> float:
    """What this process and those of its children that have ended took of the processor."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(words: list[str]) -> None:
    name, direction, tag, count, size, folder = words
    move = Move(
        keys=[f"{tag}/{n}" for n in range(int(count))],
        size=int(size),
        body=random.Random(int(size)).randbytes(int(size)) if int(size) < FILE_MIN_BYTES else b"",
        source=Path(folder) / "source",
        target=Path(folder) / "target",
    )

    async def measured() -> dict[str, float]:
        client = CLIENTS[name]()
        await _warm(client, f"warm/{tag}")
        return await _timed(client, direction, move)

    figures = asyncio.run(measured())
    came = direction == "down" and move.is_file
    if came and not filecmp.cmp(move.source, move.target, shallow=False):
        raise SystemExit(f"{name} brought other bytes than it took")
    print(json.dumps(figures), flush=True)
    os._exit(0)  # peers leave connections behind that would complain now


if __name__ == "__main__":
    main(sys.argv[1:])
