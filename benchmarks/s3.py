"""`bin/bench s3`: ways to S3 against one SeaweedFS on this machine: wall, CPU, peak memory.

    .venv/bin/python -m benchmarks.s3 [--quick] [--only CLIENT ...] [--folder DIR]

Each client moves each load up and down in a process of its own, which is warmed up with one small
blob first, so imports, credentials and the first connection are not counted. An error in any case
ends the benchmark: SeaweedFS without room answers errors, which must not be taken for times.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.testing.servers import ServerAddress, shared_server

KIB, MIB = 1 << 10, 1 << 20
BUCKET = "aflow-bench"
AT_ONCE = 64
THREADS = 16


@dataclass(frozen=True)
class Load:
    """`count` blobs of `size` bytes; a large one goes from a file and to a file."""

    name: str
    count: int
    size: int

    @property
    def is_file(self) -> bool:
        return self.size > 64 * MIB


LOADS = (
    Load("2,000 x 4 KiB", 2000, 4 * KIB),
    Load("200 x 1 MiB", 200, MIB),
    Load("1 x 2 GiB", 1, 2048 * MIB),
)
QUICK_LOADS = (
    Load("200 x 4 KiB", 200, 4 * KIB),
    Load("20 x 1 MiB", 20, MIB),
    Load("1 x 96 MiB", 1, 96 * MIB),
)


class Client(Protocol):
    """A way to S3. Both move all of `keys`; files are for the one key of a large load."""

    async def up(self, keys: list[str], body: bytes, file: Path | None) -> None: ...

    async def down(self, keys: list[str], size: int, file: Path | None) -> None: ...


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
        from engine.stores.s3.store import open_s3

        self._store = open_s3(f"s3://{BUCKET}", load({"s3_client": client}))

    async def up(self, keys: list[str], body: bytes, file: Path | None) -> None:
        if file is None:
            await _each(keys, lambda key: self._store.put(key, (body,), if_absent=True))
        else:
            with file.open("rb") as source:
                await self._store.put_file(keys[0], source.fileno(), if_absent=True)

    async def down(self, keys: list[str], size: int, file: Path | None) -> None:
        if file is None:
            await _each(keys, self._store.get)
        else:
            with file.open("wb") as target:
                assert await self._store.get_to_file(keys[0], target.fileno()) == size


class Obstore:
    def __init__(self) -> None:
        from obstore.store import S3Store

        self._store = S3Store(BUCKET, client_options={"allow_http": True})

    async def up(self, keys: list[str], body: bytes, file: Path | None) -> None:
        source = body if file is None else file
        await _each(keys, lambda key: self._store.put_async(key, source))

    async def down(self, keys: list[str], size: int, file: Path | None) -> None:
        async def get(key: str) -> None:
            reply = await self._store.get_async(key)
            if file is None:
                bytes(await reply.bytes_async())
                return
            with file.open("wb") as target:
                async for piece in reply.stream(8 * MIB):
                    target.write(piece)

        await _each(keys, get)


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

    async def up(self, keys: list[str], body: bytes, file: Path | None) -> None:
        client = await self._made()
        if file is not None:
            await client.upload_file(str(file), BUCKET, keys[0])
        else:
            await _each(keys, lambda key: client.put_object(Bucket=BUCKET, Key=key, Body=body))

    async def down(self, keys: list[str], size: int, file: Path | None) -> None:
        client = await self._made()

        async def get(key: str) -> None:
            reply = await client.get_object(Bucket=BUCKET, Key=key)
            async with reply["Body"] as content:
                await content.read()

        if file is not None:
            await client.download_file(BUCKET, keys[0], str(file))
        else:
            await _each(keys, get)


class Boto3Threads:
    def __init__(self) -> None:
        import boto3
        from botocore.config import Config

        self._client = boto3.client("s3", config=Config(max_pool_connections=THREADS))

    async def up(self, keys: list[str], body: bytes, file: Path | None) -> None:
        def put(key: str) -> None:
            if file is None:
                self._client.put_object(Bucket=BUCKET, Key=key, Body=body)
            else:
                self._client.upload_file(str(file), BUCKET, key)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(put, keys))

    async def down(self, keys: list[str], size: int, file: Path | None) -> None:
        def get(key: str) -> None:
            if file is None:
                self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            else:
                self._client.download_file(BUCKET, key, str(file))

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(get, keys))


CLIENTS: dict[str, Callable[[], Client]] = {
    "aflow": lambda: Ours("obstore"),
    "aflow, aioboto3": lambda: Ours("aioboto3"),
    "obstore": Obstore,
    "aioboto3": Aioboto3,
    "boto3, 16 threads": Boto3Threads,
}


@dataclass(frozen=True)
class Row:
    load: str
    client: str
    direction: str
    wall_s: float
    cpu_s: float
    peak_mib: float


async def _measure(client: Client, load: Load, tag: str, folder: Path) -> list[Row]:
    keys = [f"{tag}/{n:02x}/{n}" for n in range(load.count)]
    body = os.urandom(1 if load.is_file else load.size)
    source, target = folder / "source", folder / "target"
    if load.is_file:
        with source.open("wb") as file:
            for _ in range(load.size // MIB):
                file.write(os.urandom(MIB))
    await client.up([f"{tag}/warm"], b"x", None)
    await client.down([f"{tag}/warm"], 1, None)
    rows = []
    for direction in ("up", "down"):
        wall, cpu = time.perf_counter(), time.process_time()
        if direction == "up":
            await client.up(keys, body, source if load.is_file else None)
        else:
            await client.down(keys, load.size, target if load.is_file else None)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB
        rows.append(Row(load.name, tag, direction, wall, cpu, peak))
    return rows


def _in_child(name: str, load: Load, folder: Path) -> list[Row]:
    words = [name, load.name, str(load.count), str(load.size), str(folder)]
    command = [sys.executable, "-m", "benchmarks.s3", "--child", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}, {load.name}: {done.stderr[-2000:]}")
    return [Row(**{**row, "client": name}) for row in json.loads(done.stdout)]


def _child(words: list[str]) -> None:
    name, load_name, count, size, folder = words
    load = Load(load_name, int(count), int(size))
    tag = f"{name.replace(', ', '-').replace(' ', '-')}-{time.time_ns()}"

    async def measured() -> list[Row]:
        return await _measure(CLIENTS[name](), load, tag, Path(folder))

    print(json.dumps([vars(row) for row in asyncio.run(measured())]))
    sys.stdout.flush()
    os._exit(0)  # peers leave connections behind that would complain now


def _make_bucket(address: ServerAddress) -> None:
    import boto3

    os.environ.update(address.variables)
    boto3.client("s3").create_bucket(Bucket=BUCKET)


def _delete_all() -> None:
    import boto3

    bucket = boto3.resource("s3").Bucket(BUCKET)
    bucket.objects.all().delete()


def table(rows: list[Row], loads: Iterable[Load]) -> str:
    lines = [
        "| load | client | up s | CPU s | down s | CPU s | peak MiB |",
        "|---|---|" + "---:|" * 5,
    ]
    for load in loads:
        for client in dict.fromkeys(row.client for row in rows):
            found = {r.direction: r for r in rows if (r.load, r.client) == (load.name, client)}
            up, down = found["up"], found["down"]
            times = f"{up.wall_s:.2f} | {up.cpu_s:.2f} | {down.wall_s:.2f} | {down.cpu_s:.2f}"
            lines.append(f"| {load.name} | {client} | {times} | {down.peak_mib:.0f} |")
    return "\n".join(lines)


def main(words: list[str]) -> int:
    if words[:1] == ["--child"]:
        _child(words[1:])
    parser = argparse.ArgumentParser(prog="bin/bench s3", description=__doc__)
    parser.add_argument("--only", action="append", choices=CLIENTS, help="this client alone")
    parser.add_argument("--quick", action="store_true", help="small loads: does it all work?")
    parser.add_argument("--large-mib", type=int, help="size of the large blob, in place of 2 GiB")
    parser.add_argument("--folder", type=Path, help="where files and the server's data go")
    options = parser.parse_args(words)
    loads = list(QUICK_LOADS if options.quick else LOADS)
    if options.large_mib:
        loads[-1] = Load(f"1 x {options.large_mib} MiB", 1, options.large_mib * MIB)
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(dir=options.folder, prefix=".bench-s3-") as name,
        shared_server("seaweedfs", Path(name)) as address,
    ):
        _make_bucket(address)
        for load in loads:
            for client in options.only or CLIENTS:
                found = _in_child(client, load, Path(name))
                rows += found
                for row in found:
                    print(
                        f"{row.load}, {client}, {row.direction}: {row.wall_s:.2f} s",
                        file=sys.stderr,
                    )
                _delete_all()
    print(table(rows, loads))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
