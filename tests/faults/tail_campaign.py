"""`aflow logs -f` over thousands of running tasks in AWS Batch, on another machine than the driver.

python -m tests.faults.tail_campaign [--tasks 2000] [--seconds 40] [--every 10]

The driver is real, and so is the reader; S3 is SeaweedFS. Thousands of real containers are too many
for one machine, so jobs are of the emulator's no-op kind, and what containers say is put by this
program, by their own code: each task prints a line every so often, with the time in it. A line's
lag is the time at which it was read from the reader's stdout, less the time in it. The reader's
requests are counted by a proxy.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

from engine.config import Config
from engine.container.words import Words, keys_of
from engine.errors import Failure
from engine.executors.base import JobOutput, JobStarted
from engine.executors.batch import wall_clock_us
from engine.stores.base import BlobStore
from engine.stores.packed import PackedList
from engine.stores.remote.parcels import Boot, Ending, Order
from engine.stores.s3.store import open_s3
from engine.stores.taskspec import Report
from engine.testing.fault_proxy import Faults, fault_proxy
from engine.testing.servers import ServerAddress, shared_server
from tests.faults.batch_adoption import environment
from tests.servers import BATCH_OPTIONS, BUCKET, make_bucket

LIMIT_S = 300.0
_LINE_MAX_BYTES = 1 << 20
_COMMAND = [sys.executable, "-P", "-c", "from engine.cli.main import main; main()"]

FLOW = """
from engine import FlowSpec, Parameter, batch, step

class Chatty(FlowSpec):
    width = Parameter("width", default=2)

    @step
    def start(self):
        self.items = list(range(self.width))
        self.next(self.talk, foreach="items")

    @batch
    @step
    def talk(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
"""


@dataclass
class Tail:
    """What the reader showed. Lags are seconds."""

    written: int = 0
    lags_s: list[float] = field(default_factory=list)
    out_of_order: int = 0
    took_s: float = 0.0
    requests: int = 0
    code: int = -1
    code_interrupted: int = -1
    driver_code: int = -1
    outlived_interrupt: bool = False

    @property
    def problems(self) -> list[str]:
        """What is not as it should be, but for how long it took."""
        found = {
            f"{self.written - len(self.lags_s)} lines were lost": self.written != len(self.lags_s),
            f"{self.out_of_order} lines of a task came out of order": self.out_of_order > 0,
            f"the run ended with {self.driver_code}, the reader with {self.code}": (
                self.driver_code != 1 or self.code != 1
            ),
            f"Ctrl-C ended a reader with {self.code_interrupted}": self.code_interrupted != 130,
            "Ctrl-C in a reader ended the run": not self.outlived_interrupt,
        }
        return [problem for problem, is_so in found.items() if is_so]

    @property
    def p99_s(self) -> float:
        return quantiles(self.lags_s, n=100)[98]

    def __str__(self) -> str:
        p50, worst = quantiles(self.lags_s, n=100)[49], max(self.lags_s)
        return (
            f"{self.written:,} lines, lag p50 {p50:.1f} s, p99 {self.p99_s:.1f} s, most "
            f"{worst:.1f} s; {self.requests} requests of the reader in {self.took_s:.0f} s, "
            f"{self.requests / self.took_s:.1f} a second; it ended with {self.code}"
        )


@dataclass(frozen=True)
class Talk:
    """How many tasks talk for how long; each prints a line every so many seconds."""

    tasks: int
    seconds: float
    every_s: float
    seed: int = 1


def campaign(folder: Path, talk: Talk, s3: ServerAddress, url: str) -> Tail:
    """Start Batch, a run and readers; talk, and see what is read. `os.environ` leads to AWS then.

    Args:
        folder: an empty one.
        talk: what the tasks say.
        s3: a SeaweedFS.
        url: an empty place in it.
    """
    options = (*BATCH_OPTIONS, "--no-op", "3600", "--vcpus", str(talk.tasks))
    with shared_server("batch", folder, options=options) as batch:
        env = environment(batch, url, folder / "cache")
        env["AWS_ENDPOINT_URL_S3"] = s3.endpoint_url
        os.environ.update({name: value for name, value in env.items() if name != "PATH"})
        (folder / "chatty.py").write_text(FLOW)
        return asyncio.run(_behind_proxy(folder, talk, env))


async def _behind_proxy(folder: Path, talk: Talk, env: Mapping[str, str]) -> Tail:
    blobs = open_s3(env["AFLOW_DATASTORE"], Config())
    faults = Faults(0.0)
    try:
        async with fault_proxy(env["AWS_ENDPOINT_URL_S3"], faults) as url:
            there = {"AWS_ENDPOINT_URL_S3": url, "XDG_CACHE_HOME": str(folder / "there")}
            return await _follow(folder, talk, blobs, env, {**env, **there}, faults)
    finally:
        await blobs.aclose()


async def _follow(
    folder: Path,
    talk: Talk,
    blobs: BlobStore,
    env: Mapping[str, str],
    other: Mapping[str, str],
    faults: Faults,
) -> Tail:
    tail = Tail()
    words = ["run", "chatty.py", "--width", str(talk.tasks), "--max-workers", str(talk.tasks)]
    async with _started(words, folder, env) as driver:
        boot, names = await _jobs(blobs, talk.tasks)
        where = ["logs", "-f", f"Chatty/{boot.run_id}", "--json"]
        async with _started(where, folder, other) as reader, _started(where, folder, env) as second:
            began_s = time.monotonic()
            async with asyncio.timeout(talk.seconds + LIMIT_S), asyncio.TaskGroup() as group:
                reading = group.create_task(_read(reader, tail))
                group.create_task(_interrupt(second, driver, tail, talk.seconds / 2))
                # Reads the second one's output, which would stop it else.
                group.create_task(_drain(second))
                group.create_task(_drain(driver))
                await _talk(blobs, boot, names, talk, tail)
                await reading
            tail.took_s, tail.requests = time.monotonic() - began_s, faults.requests
            tail.code = await reader.wait()
            tail.driver_code = await driver.wait()
    return tail


async def _jobs(blobs: BlobStore, count: int) -> tuple[Boot, list[str]]:
    """What the driver has sent to Batch, once all of it is there."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            names: list[str] = []
            keys = [i.key async for i in blobs.list("runs/Chatty/") if "/parcels/" in i.key]
            for key in keys:
                boot, *orders = PackedList(await blobs.get(key))
                names += [Order.unpack(order).name for order in orders]
            if len(names) == count:
                return Boot.unpack(boot), names
            await asyncio.sleep(0.2)


async def _talk(blobs: BlobStore, boot: Boot, names: list[str], talk: Talk, tail: Tail) -> None:
    """What the containers do: begin, print, and end in failure."""
    chance = random.Random(talk.seed)
    async with asyncio.TaskGroup() as group:
        for name in names:
            first_s = chance.random() * talk.every_s
            group.create_task(_talk_one(blobs, boot, name, first_s, talk, tail))


async def _talk_one(
    blobs: BlobStore, boot: Boot, name: str, first_s: float, talk: Talk, tail: Tail
) -> None:
    until_s = time.monotonic() + talk.seconds
    await asyncio.sleep(first_s)  # machines do not come up all at once
    words = Words(blobs, name, keys_of(boot.flow, boot.run_id, name, "place"), wall_clock_us)
    began_us, number = wall_clock_us(), 0
    async with asyncio.TaskGroup() as group:
        group.create_task(words.run())
        await words.take(JobStarted(name, began_us, 1))
        while time.monotonic() < until_s:
            now_us = wall_clock_us()
            text = json.dumps({"at": now_us, "name": name, "number": number})
            await words.take(JobOutput(name, "stdout", ((now_us, text),)))
            number += 1
            tail.written += 1
            await asyncio.sleep(talk.every_s)
        words.stop()
    report = Report(failure=Failure("task-failed", "as it was told to")).pack()
    await words.end(Ending("returned", 1, "", began_us, wall_clock_us(), report))


async def _read(reader: asyncio.subprocess.Process, tail: Tail) -> None:
    assert reader.stdout is not None
    last: dict[str, int] = {}
    async for line in reader.stdout:
        text = json.loads(line)["text"]
        if not text.startswith("{"):
            continue
        said = json.loads(text)
        tail.lags_s.append((wall_clock_us() - said["at"]) / 1e6)
        tail.out_of_order += said["number"] != last.get(said["name"], -1) + 1
        last[said["name"]] = said["number"]


async def _drain(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    async for _ in process.stdout:
        pass


async def _interrupt(
    second: asyncio.subprocess.Process,
    driver: asyncio.subprocess.Process,
    tail: Tail,
    after_s: float,
) -> None:
    await asyncio.sleep(after_s)
    second.send_signal(signal.SIGINT)
    tail.code_interrupted = await second.wait()
    tail.outlived_interrupt = driver.returncode is None


@asynccontextmanager
async def _started(
    words: list[str], folder: Path, env: Mapping[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *_COMMAND,
        *words,
        cwd=folder,
        env={**os.environ, **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_LINE_MAX_BYTES,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--every", type=float, default=10.0, metavar="S", help="between two lines")
    options = parser.parse_args()
    talk = Talk(options.tasks, options.seconds, options.every)
    with tempfile.TemporaryDirectory() as name, shared_server("seaweedfs", Path(name)) as s3:
        asyncio.run(make_bucket(s3))
        tail = campaign(Path(name), talk, s3, f"s3://{BUCKET}/tail")
    for line in (f"{options.tasks:,} tasks: {tail}", *tail.problems):
        sys.stdout.write(f"{line}\n")
    return int(bool(tail.problems) or tail.p99_s > 5.0)


if __name__ == "__main__":
    sys.exit(main())
