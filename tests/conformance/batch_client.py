"""A client of Batch as tests want it: short calls, and waits that end."""

import asyncio
import json
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import aioboto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from engine.testing.servers import ACCESS_KEY, SECRET_KEY, ServerAddress
from tests.servers import QUEUE

PATIENCE_S = 30.0
IMAGE = "an-image"
ROLE = f"arn:aws:iam::123456789012:role/{QUEUE}-service"
FOREVER = "echo started; sleep 600"
ENDED = ("SUCCEEDED", "FAILED")

Shown = dict[str, Any]


@dataclass
class BatchClient:
    """Jobs of one test: their names begin with `name`, which no other test has."""

    address: ServerAddress
    batch: Any
    logs: Any
    stack: Callable[[str], Any]
    name: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:10]}")

    async def define(self, script: str, *, name: str = "", **more: Any) -> str:
        """Register a definition whose container runs a script of the shell."""
        container = more.pop("container", {})
        made = await self.batch.register_job_definition(
            jobDefinitionName=name or f"{self.name}-d",
            type="container",
            containerProperties=container_of(script, **container),
            **more,
        )
        return str(made["jobDefinitionArn"])

    async def submit(self, script: str, *, name: str = "", **more: Any) -> str:
        """Submit a job that runs a script of the shell; the id."""
        definition = more.pop("jobDefinition", None) or await self.define(script)
        made = await self.batch.submit_job(
            jobName=name or self.name,
            jobQueue=more.pop("jobQueue", QUEUE),
            jobDefinition=definition,
            **more,
        )
        return str(made["jobId"])

    async def job(self, job_id: str) -> Shown:
        [found] = (await self.batch.describe_jobs(jobs=[job_id]))["jobs"]
        return dict(found)

    async def until(self, job_id: str, *statuses: str) -> Shown:
        """The job, when it has one of the states; by default, when it has ended."""
        return await self.until_true(job_id, lambda job: job["status"] in (statuses or ENDED))

    async def until_true(self, job_id: str, is_so: Callable[[Shown], bool]) -> Shown:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await self.job(job_id)
                if is_so(found):
                    return found
                await asyncio.sleep(0.02)

    async def lines(self, job: Shown) -> list[str]:
        """What a job printed so far."""
        if not (stream := job["container"].get("logStreamName")):
            return []
        return await self.lines_of(stream)

    async def lines_of(self, stream: str) -> list[str]:
        try:
            said = await self.logs.get_log_events(
                logGroupName="/aws/batch/job", logStreamName=stream, startFromHead=True
            )
        except self.logs.exceptions.ResourceNotFoundException:  # not started yet
            return []
        return [event["message"] for event in said["events"]]

    async def until_printed(self, job_id: str, line: str) -> Shown:
        """The job, when it has printed a line."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if line in await self.lines(await self.job(job_id)):
                    return await self.job(job_id)
                await asyncio.sleep(0.05)

    async def queue(self, *, tags: dict[str, str] | None = None, **resources: Any) -> str:
        """Make a queue with a compute environment of its own; the name of both."""
        ec2 = self.stack("ec2")
        async with ec2 as client:
            subnets = (await client.describe_subnets())["Subnets"]
            groups = (await client.describe_security_groups())["SecurityGroups"]
        name = f"{self.name}-q{uuid.uuid4().hex[:6]}"
        network = {"subnets": [subnets[0]["SubnetId"]], "securityGroupIds": [groups[0]["GroupId"]]}
        await self.batch.create_compute_environment(
            computeEnvironmentName=name,
            type="MANAGED",
            state="ENABLED",
            serviceRole=ROLE,
            computeResources={"type": "FARGATE", "maxvCpus": 4, **network, **resources},
        )
        order = [{"order": 1, "computeEnvironment": name}]
        await self.batch.create_job_queue(
            jobQueueName=name,
            state="ENABLED",
            priority=1,
            computeEnvironmentOrder=order,
            tags=tags or {},
        )
        return name

    async def faults(self, *rules: Shown, seed: int = 0) -> None:
        """Plan faults for jobs of this test; a rule names jobs by what follows `self.name`."""
        planned = [{**rule, "job": f"{self.name}{rule.get('job', '*')}"} for rule in rules]
        body = json.dumps({"seed": seed, "rules": planned}).encode()
        url = f"{self.address.endpoint_url}/aflow/batch/faults/{self.name}"
        request = urllib.request.Request(url, body, method="PUT")
        await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=PATIENCE_S).close())


@cache
def _session() -> Any:
    """One for all tests: it keeps what it read of the SDK's models, 0.4 s for each client else."""
    return aioboto3.Session(region_name="us-east-1")


@asynccontextmanager
async def batch_client(
    address: ServerAddress, access_key: str = ACCESS_KEY
) -> AsyncIterator[BatchClient]:
    settings = Config(retries={"total_max_attempts": 1}, max_pool_connections=64)

    def client(service: str) -> Any:
        return _session().client(
            service,
            endpoint_url=address.endpoint_url,
            config=settings,
            aws_access_key_id=access_key,
            aws_secret_access_key=SECRET_KEY,
        )

    async with client("batch") as batch, client("logs") as logs:
        yield BatchClient(address, batch, logs, client)


def container_of(
    script: str, *, vcpus: float = 1, memory: int = 128, **more: Any
) -> dict[str, Any]:
    return {
        "image": IMAGE,
        "command": ["sh", "-c", script],
        "resourceRequirements": [
            {"type": "VCPU", "value": str(vcpus)},
            {"type": "MEMORY", "value": str(memory)},
        ],
        **more,
    }


def nodes_of(count: int, script: str, *, main: int = 0) -> dict[str, Any]:
    ranges: Sequence[Any] = [{"targetNodes": "0:", "container": container_of(script)}]
    return {"numNodes": count, "mainNode": main, "nodeRangeProperties": ranges}


async def refused(call: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        await call
    return caught.value


async def come_true(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.02)


def code_of(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])


def ids(found: Any) -> list[str]:
    return [each["jobId"] for each in found["jobSummaryList"]]
