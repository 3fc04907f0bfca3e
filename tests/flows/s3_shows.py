"""A flow in S3 leaves what it leaves in a directory: the same digests, one by one.

python -m tests.flows.s3_shows

Runs examples/digits.py in a directory, against SeaweedFS as `aflow dev up` starts it, and against
moto's server. Each run in S3 is then read and resumed from a second machine, which is another
cache: by `logs`, `dump`, the client and its async twin, and `resume`.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3

from engine.testing.servers import shared_server
from tests.flows.batch_shows import DIGITS, Subject, dev_stack, digests
from tests.flows.harness import ROOT, Said, aflow

LIMIT_S = 300.0
BUCKET = "aflow-shows"
READS = """
import asyncio, sys
from engine import Flow
from engine.client import aio

name = sys.argv[1]


async def awaited():
    run = await aio.Flow(name).latest_run
    count = 0
    async for step in run:
        async for task in step:
            count += 1
    return run.pathspec, await run.status, count


run = Flow(name).latest_run
assert run is not None
told = run.pathspec, run.status, sum(1 for step in run for task in step)
assert asyncio.run(awaited()) == told, told
print(*told)
"""


@dataclass(frozen=True)
class Machine:
    """Commands in one directory, with a cache of its own and a datastore."""

    folder: Path
    env: Mapping[str, str]
    cache: str
    datastore: str

    def done(self, *words: str) -> Said:
        said = aflow(*words, cwd=self.folder, env=self._env, limit_s=LIMIT_S)
        assert said.code == 0, said
        return said

    def read(self, flow: str) -> str:
        """What both clients say of the latest run: its pathspec, status and number of tasks."""
        done = subprocess.run(
            [sys.executable, "-P", "-c", READS, flow],
            cwd=self.folder,
            env={**os.environ, **self._env, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def _env(self) -> dict[str, str]:
        place = str(self.folder / ".caches" / self.cache)
        return {**self.env, "XDG_CACHE_HOME": place, "AFLOW_DATASTORE": self.datastore}


def shows(folder: Path, env: Mapping[str, str], s3_url: str, subject: Subject) -> list[str]:
    """Run a flow in a directory and in S3, and read and resume it from elsewhere.

    Returns:
        A line for each thing shown.

    Raises:
        AssertionError: one of them does not hold.
    """
    (folder / subject.name).write_text(subject.text)
    local = Machine(folder, {}, "local", str(folder / "local"))
    local.done("run", subject.name, "--max-workers", "64")
    wanted = digests(local.done, subject)
    tasks = sum(map(len, wanted.values()))
    artifacts = sum(len(task) for each in wanted.values() for task in each)
    equal = f"{tasks} tasks, {artifacts} artifacts equal to the local run's"

    here = Machine(folder, env, "here", s3_url)
    said = here.done("run", subject.name, "--max-workers", "64")
    assert digests(here.done, subject) == wanted
    told = [f"run: {said.err.strip().splitlines()[-2]}; {equal}"]

    there = Machine(folder, env, "there", s3_url)
    assert digests(there.done, subject) == wanted
    log = there.done("logs", "@latest/end").out
    assert log.strip(), "the log of the last step is empty"
    told.append(f"elsewhere, dump: {equal}; logs: {log.strip().splitlines()[-1]}")
    read = there.read(_flow_of(subject))
    assert read.endswith(f" succeeded {tasks}"), read
    told.append(f"elsewhere, by the client and its async twin: {read}")
    said = there.done("resume", subject.name, "--step", subject.steps[-2])
    assert digests(there.done, subject) == wanted
    told.append(f"elsewhere, resume: {said.err.strip().splitlines()[-2]}; {equal}")
    assert digests(here.done, subject) == wanted
    return told


def _flow_of(subject: Subject) -> str:
    found = re.search(r"class (\w+)\(FlowSpec\)", subject.text)
    assert found
    return found[1]


@contextmanager
def _dev(folder: Path) -> Iterator[tuple[Mapping[str, str], str]]:
    with dev_stack(folder) as env:
        yield env, f"s3://aflow-dev/shows-{os.getpid()}"


@contextmanager
def _moto(folder: Path) -> Iterator[tuple[Mapping[str, str], str]]:
    with shared_server("moto", folder) as server:
        env = server.variables
        client = boto3.client(
            "s3",
            endpoint_url=server.endpoint_url,
            region_name=env["AWS_DEFAULT_REGION"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=BUCKET)
        client.close()
        yield env, f"s3://{BUCKET}/shows"


def main() -> int:
    for name, server in (("SeaweedFS, by `aflow dev up`", _dev), ("moto's server", _moto)):
        with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (env, url):
            sys.stdout.write(f"{name}\n")
            for line in shows(Path(folder), env, url, DIGITS):
                sys.stdout.write(f"  {line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
