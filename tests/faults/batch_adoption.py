"""R-12: a driver killed with jobs in flight in AWS Batch; the run that goes on takes them up.

python -m tests.faults.batch_adoption [--jobs 200] [--vcpus 12] [--record FILE]

The jobs are real, by the emulator. What does not fit into its vCPUs waits in Batch: in flight all
the same. When Batch has all jobs, and some run, the driver gets SIGKILL; then `aflow resume` is to
submit none of them again, and to lose none.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import boto3

from engine.testing.servers import ServerAddress, shared_server
from tests.flows.harness import aflow
from tests.reliability.record import add_record_option, write_record
from tests.servers import BATCH_OPTIONS, BUCKET, QUEUE, make_bucket

LIMIT_S = 900.0

FLOW = """
import os, time
from engine import FlowSpec, Parameter, batch, step

class Waits(FlowSpec):
    folder = Parameter("folder", default="")
    width = Parameter("width", default=6)

    @step
    def start(self):
        self.items = list(range(self.width))
        self.next(self.held, foreach="items")

    @batch
    @step
    def held(self):
        open(f"{self.folder}/began-{self.input}-{os.getpid()}", "w").close()
        while not os.path.exists(f"{self.folder}/go"):
            time.sleep(0.05)
        self.made = self.input * 10
        self.next(self.join)

    @step
    def join(self, inputs):
        self.made = [task.made for task in inputs]
        self.next(self.end)

    @step
    def end(self):
        assert self.made == [10 * number for number in range(self.width)], self.made
        print("all", len(self.made))
"""


@dataclass(frozen=True)
class Adopted:
    """What came of `in_flight` jobs whose driver was killed."""

    in_flight: int
    resubmitted: int
    lost: int
    ran_twice: int


def adopt(folder: Path, env: Mapping[str, str], width: int, *, running: int) -> Adopted:
    """Kill a driver once Batch has `width` jobs of it of which `running` have begun; go on.

    Args:
        folder: an empty one.
        env: leads to Batch and to the datastore.
    """
    seen = folder / "seen"
    seen.mkdir()
    (folder / "waits.py").write_text(FLOW)
    words = ["waits.py", "--max-workers", str(width)]
    given = ["--folder", str(seen), "--width", str(width)]
    others = _jobs(env)
    with started("run", *words, *given, cwd=folder, env=env) as driver:
        within(LIMIT_S, lambda: len(list(seen.glob("began-*"))) >= running, driver)
        driver.kill()
        driver.wait()
    before = _jobs(env)
    mine = {name: size for name, size in before.items() if name not in others}
    in_flight = sum(size for name, size in mine.items() if "-held-" in name)
    (seen / "go").touch()
    said = aflow("resume", *words, cwd=folder, env=env, limit_s=LIMIT_S)
    assert said.code == 0, said
    again = {name: size for name, size in _jobs(env).items() if name not in before}
    began = [path.name.split("-")[1] for path in seen.glob("began-*")]
    return Adopted(
        in_flight=in_flight,
        resubmitted=sum(size for name, size in again.items() if "-held-" in name),
        lost=width - len(set(began)) if f"all {width}" in said.out else width,
        ran_twice=len(began) - len(set(began)),
    )


def _jobs(env: Mapping[str, str]) -> dict[str, int]:
    """Of each job of the queue how many containers it has, whatever became of it, by its name."""
    client = boto3.client(
        "batch",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        region_name=env["AWS_DEFAULT_REGION"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
    )
    found: dict[str, int] = {}
    pages = client.get_paginator("list_jobs")
    for state in ("PENDING", "RUNNABLE", "STARTING", "RUNNING", "FAILED", "SUCCEEDED"):
        for page in pages.paginate(jobQueue=env["AFLOW_BATCH_QUEUE"], jobStatus=state):
            for job in page["jobSummaryList"]:
                found[job["jobName"]] = (job.get("arrayProperties") or {}).get("size", 1)
    client.close()
    return found


@contextmanager
def started(*words: str, cwd: Path, env: Mapping[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
    """A command that goes on beside the caller, and is killed with it."""
    program = [sys.executable, "-P", "-c", "from engine.cli.main import main; main()", *words]
    null = subprocess.DEVNULL
    with subprocess.Popen(
        program, cwd=cwd, env={**os.environ, **env}, stdin=null, stdout=null, stderr=null
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def within(
    limit_s: float, claim: Callable[[], bool], process: "subprocess.Popen[bytes] | None" = None
) -> None:
    """Wait until something is true, or the process that is to make it true has ended."""
    until = time.monotonic() + limit_s
    while not claim():
        assert time.monotonic() < until, "it did not come true"
        assert process is None or process.poll() is None, "it ended before"
        time.sleep(0.02)


def environment(batch: ServerAddress, datastore: str, cache: Path) -> dict[str, str]:
    """What leads aflow to an emulator and to a datastore."""
    role = "arn:aws:iam::123456789012:role/aflow"
    return {
        **batch.variables,
        "AFLOW_DATASTORE": datastore,
        "AFLOW_BATCH_QUEUE": QUEUE,
        "AFLOW_BATCH_EXECUTION_ROLE": role,
        "AFLOW_BATCH_JOB_ROLE": role,
        "XDG_CACHE_HOME": str(cache),
        "PATH": os.environ["PATH"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--vcpus", type=int, default=12, help="so many jobs run at once")
    add_record_option(parser)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = [*BATCH_OPTIONS, "--env", f"AFLOWJOB_CACHE={folder}"]
        with shared_server("batch", folder, options=[*words, "--vcpus", str(options.vcpus)]) as at:
            asyncio.run(make_bucket(at))
            env = environment(at, f"s3://{BUCKET}/adoption", folder / "cache")
            (folder / "flow").mkdir()
            running = min(options.jobs, options.vcpus)
            adopted = adopt(folder / "flow", env, options.jobs, running=running)
    sys.stdout.write(f"{adopted}, {time.monotonic() - began:.0f} s\n")
    passed = adopted == Adopted(options.jobs, 0, 0, 0)
    counts = {key.replace("_", " "): value for key, value in asdict(adopted).items()}
    write_record(options.record, "R-12", counts, passed=passed)
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
