"""Is everything there that steps in AWS Batch need? One look at each part, and how to mend it.

Changes nothing that stays but for a job definition, which the first run would make too: an object
is put into the datastore and removed again, and no job is submitted.
"""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable

from msgspec import Struct

from engine.aws.roles import look_at_role
from engine.aws.sessions import AwsSession
from engine.config import Config
from engine.container.command import container_command
from engine.datastores import open_blobs
from engine.errors import EngineError
from engine.executors import batch_limits as limits
from engine.executors.batch_client import BatchClient
from engine.executors.batch_errors import STATEMENT_HINT, BatchDeniedError
from engine.executors.batch_requests import Needs
from engine.flow.decorators.batch import Batch
from engine.runtime.batch_jobs import batch_client
from engine.runtime.batch_needs import Queues, needs_of
from engine.runtime.batch_permissions import denied_actions
from engine.runtime.batch_queues import QueueScout, sizes_of
from engine.runtime.clock import wall_us
from engine.runtime.remote_variables import check_variables, variables_of

SKEW_US = 60_000_000
_TASKS_SERVICE = "ecs-tasks.amazonaws.com"
DRIVER_ACTIONS = (
    "batch:SubmitJob",
    "batch:DescribeJobs",
    "batch:ListJobs",
    "batch:TerminateJob",
    "batch:TagResource",
    "batch:RegisterJobDefinition",
    "batch:DescribeJobDefinitions",
    "batch:DescribeJobQueues",
    "batch:DescribeComputeEnvironments",
    "ec2:DescribeInstanceTypes",
    "logs:GetLogEvents",
)
"""What a driver does in AWS, beside S3. Source: Service Authorization Reference (read 2026-11)."""


class Finding(Struct, frozen=True):
    """`level`: "ok", "warning", "error"."""

    check: str
    level: str
    found: str
    hint: str = ""


async def examine_batch(config: Config, queue: str) -> AsyncIterator[Finding]:
    """Make every check; one that fails does not keep the next from being made.

    Args:
        config: the settings.
        queue: the job queue; "" for the one of the settings, else the only one.
    """
    config = config.replace("doctor", batch_queue=queue or None)
    async with batch_client(config) as (client, session):
        patient = _Patient(config, client, session)
        for name, check in patient.checks().items():
            try:
                yield await check()
            except BatchDeniedError as error:
                hint = error.hint or ""
                allowed = f"allow it in IAM: {statement()}" if hint == STATEMENT_HINT else hint
                yield Finding(name, "error", error.message, allowed)
            except EngineError as error:
                yield Finding(name, "error", error.message, error.hint or "")


def statement() -> str:
    """The IAM statement that a driver's credentials need, beside those for the bucket."""
    actions = {"Effect": "Allow", "Action": list(DRIVER_ACTIONS), "Resource": "*"}
    return json.dumps(actions)


class _Patient:
    def __init__(self, config: Config, client: BatchClient, session: AwsSession) -> None:
        self._config = config
        self._client = client
        self._session = session
        self._needs: Needs = needs_of(Batch(), None, config)
        self._queues = Queues(QueueScout(client, sizes_of(session)))
        self._is_fitted = False  # whether the queue is known to be there

    def checks(self) -> dict[str, Callable[[], Awaitable[Finding]]]:
        return {
            "access": self._credentials,
            "datastore": self._datastore,
            "queue": self._queue,
            "job role": lambda: self._role("job role", self._needs.job_role, "batch_job_role"),
            "execution": lambda: self._role(
                "execution", self._needs.execution_role, "batch_execution_role"
            ),
            "image": self._image,
            "permissions": self._permissions,
            "limits": self._limits,
        }

    async def _credentials(self) -> Finding:
        found = await self._session.credentials()
        region = (await self._session.location("batch")).region
        return Finding("access", "ok", f"key {found.access_key[:4]}..., region {region}")

    async def _datastore(self) -> Finding:
        config = self._config
        if "://" not in config.datastore:
            hint = "--datastore s3://BUCKET/PREFIX, or the setting datastore (AFLOW_DATASTORE)"
            found = f"{config.datastore} is a directory: containers cannot see it"
            return Finding("datastore", "error", found, hint)
        blobs, key = open_blobs(config), f"doctor/{os.urandom(8).hex()}"
        try:
            await blobs.put(key, (b"aflow doctor",), if_absent=True)
            info = await blobs.stat(key)
            await blobs.delete([key])
        finally:
            await blobs.aclose()
        skew_us = abs(info.modified_us - wall_us()) if info else 0
        if skew_us > SKEW_US:
            found = f"this machine's clock is {skew_us // 1_000_000} s off that of S3"
            return Finding("datastore", "warning", found, "timedatectl set-ntp true")
        return Finding("datastore", "ok", f"{config.datastore} can be written; the clocks agree")

    async def _queue(self) -> Finding:
        self._needs = await self._queues.fit(self._needs, container_command())
        self._is_fitted = True
        return Finding("queue", "ok", f"{self._needs.queue} takes jobs, on {self._needs.platform}")

    async def _role(self, check: str, arn: str | None, setting: str) -> Finding:
        if arn is None:
            needed = setting == "batch_job_role"
            level = "warning" if needed else "ok"
            hint = f"set {setting} (AFLOW_{setting.upper()})" if needed else ""
            return Finding(check, level, f"none is set; {setting} names one", hint)
        name = arn.rpartition("/")[2]
        role = await look_at_role(self._session, arn)
        if role.problem == "NoSuchEntity":
            return Finding(check, "error", f"there is no role {name!r}", f"mend {setting}")
        if role.problem:
            return Finding(check, "warning", f"{name} cannot be looked at: {role.problem}")
        if _TASKS_SERVICE not in role.trust:
            hint = f"its trust policy has to name {_TASKS_SERVICE}"
            return Finding(check, "error", f"{name} cannot be taken by containers", hint)
        return Finding(check, "ok", name)

    async def _image(self) -> Finding:
        return Finding("image", "ok", f"{self._needs.image}; whether it is there, a job will tell")

    async def _permissions(self) -> Finding:
        if not self._is_fitted:
            return Finding("permissions", "warning", "not asked: there is no queue to ask about")
        denied = await denied_actions(self._client, self._needs)
        if denied:
            told = next(iter(denied.values())).message
            found = f"{', '.join(denied)} denied: {told}"
            return Finding("permissions", "error", found, f"allow it in IAM: {statement()}")
        return Finding("permissions", "ok", "jobs may be defined, submitted, looked at and ended")

    async def _limits(self) -> Finding:
        location = await self._session.location("s3")
        check_variables("Flow", self._needs, variables_of(self._config, location, "0" * 64))
        found = f"{limits.OUR_CALLS_S:g} calls a second of the account's {limits.API_CALLS_S:g}"
        return Finding("limits", "ok", f"{found}; arrays of {self._config.batch_array_max:,}")
