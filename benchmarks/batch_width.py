"""Ten thousand jobs of AWS Batch from one process, on the emulator's no-op mode.

    python -m benchmarks.batch_width [--jobs 10000] [--seconds 20] [--array-max 10000]

No container runs, so nobody leaves word: all that is known comes from Batch itself, which is the
dearest way there is. Prints the calls, the calls per second, the memory of this process, and the
processor time while all jobs run.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from engine.aws.rates import TokenBucket
from engine.aws.sessions import AwsSession
from engine.config import Config
from engine.executors import batch_limits as limits
from engine.executors.base import Job, JobEnded, JobUpdate
from engine.executors.batch import BatchExecutor, BatchExecutorConfig
from engine.executors.batch_client import BatchClient
from engine.executors.batch_requests import Needs
from engine.executors.batch_submit import NEEDS, Sent

QUEUE = "no-op"


class SilentPost:
    """Takes orders of 500 bytes each, hears nothing, and finds a result when a job has ended."""

    async def send(self, parcel: str, jobs: Sequence[Job], pack: int) -> Mapping[str, str]:
        return {"AFLOWJOB_PARCEL": parcel}

    async def sent(self, jobs: Sequence[Job]) -> Mapping[str, Sent]:
        return {}

    async def collect(self) -> Sequence[JobUpdate]:
        return []

    async def settle(self, job: Job) -> bytes | None:
        return b"done"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long a job takes")
    parser.add_argument("--array-max", type=int, default=10_000)
    options = parser.parse_args()
    command = [sys.executable, "-P", "-m", "engine.testing.batch", "--queue", QUEUE]
    command += ["--no-op", str(options.seconds), "--vcpus", str(options.jobs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=os.getcwd()) as emulator:
        try:
            assert emulator.stdout is not None
            url = json.loads(emulator.stdout.readline())["endpoint_url"]
            os.environ |= {
                "AWS_ACCESS_KEY_ID": "ak",
                "AWS_SECRET_ACCESS_KEY": "sk",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
            found = asyncio.run(measure(url, options))
        finally:
            emulator.terminate()
    print(json.dumps(found, indent=2))
    return 0


async def measure(url: str, options: argparse.Namespace) -> dict[str, object]:
    session = AwsSession(Config(batch_endpoint_url=url, sources={}))
    bucket = TokenBucket(limits.OUR_CALLS_S, limits.OUR_CALLS_S)
    client = BatchClient(lambda: session.client("batch"), bucket)
    settings = BatchExecutorConfig(("true",), array_max=options.array_max)
    executor = BatchExecutor(client, SilentPost(), settings)
    needs = Needs(QUEUE, "image", cpu=1.0, memory_mib=2048, platform="FARGATE", execution_role="r")
    jobs = [
        Job(f"run-step-{number}-0", bytes(500), resources={NEEDS: needs})
        for number in range(options.jobs)
    ]
    await session.client("batch")
    began, cpu_began = time.monotonic(), time.process_time()
    await executor.submit(jobs)
    ended, waiting = 0, (0.0, 0.0)
    try:
        async with asyncio.timeout(1200):
            async for updates in executor.updates():
                now = sum(isinstance(update, JobEnded) for update in updates)
                if now and not ended:
                    waiting = (time.monotonic() - began, time.process_time() - cpu_began)
                ended += now
                if ended == len(jobs):
                    break
    finally:
        await executor.aclose()
        await session.aclose()
    took_s = time.monotonic() - began
    calls = sum(client.calls.values())
    return {
        "jobs": ended,
        "array_max": options.array_max,
        "took_s": round(took_s, 1),
        "calls": dict(client.calls),
        "calls_s": round(calls / took_s, 2),
        "cpu_share_until_first_end": round(waiting[1] / max(waiting[0], 0.001), 3),
        "cpu_s": round(time.process_time() - cpu_began, 1),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


if __name__ == "__main__":
    sys.exit(main())
