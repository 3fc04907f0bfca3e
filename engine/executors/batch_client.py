"""Speaks to AWS Batch: every call waits for its turn, has a deadline, and is tried again if it may.

A SubmitJob whose answer is lost is not tried again here: it may have been accepted, and there is no
token that would make a second one harmless. SubmitUnclearError says so to who can find out.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from engine.aws.rates import TokenBucket
from engine.aws.sessions import CREDENTIAL_HINT, credential_errors
from engine.errors import ExecutorError
from engine.executors.batch_errors import (
    BatchDeniedError,
    BatchSettingError,
    BatchThrottledError,
    BatchUnavailableError,
    SubmitUnclearError,
    error_of,
)
from engine.executors.batch_requests import Body
from engine.executors.batch_states import ACTIVE_STATES, Seen, read_job

CALL_S = 30.0
TRIES, FIRST_TRIES = 8, 3
"""Of a call that may be repeated; and of one while Batch has never answered: most likely the
endpoint is wrong."""

_BACKOFF_S, _BACKOFF_MAX_S = 0.2, 10.0
_ENDPOINT_HINT = "is batch_endpoint_url (AFLOW_BATCH_ENDPOINT_URL) or the region right?"

OURS = "/aflow_"
"""What the ARN of a job definition of aflow's has in it."""

Client = Callable[[], Awaitable[Any]]
"""Gives the SDK's client. Any: the SDK makes its classes at run time."""


class Listed(Struct, frozen=True):
    """A job of aflow's that has not ended, as a list shows it. `size` is its number of containers.

    Lists do not say whose it is, nor where: `user` and `queue` are for who has asked.
    """

    job_id: str
    name: str
    state: str
    created_us: int
    size: int = 1
    user: str = ""
    queue: str = ""

    @property
    def run_id(self) -> str:
        return self.name.partition("-")[0]


def size_of(job: Mapping[str, Any]) -> int:  # Any: JSON
    """How many containers a job has, as a list or a description shows it."""
    array, nodes = job.get("arrayProperties") or {}, job.get("nodeProperties") or {}
    return int(array.get("size") or nodes.get("numNodes") or 1)


class BatchClient:
    """The calls of AWS Batch that an executor makes.

    Args:
        client: gives the SDK's client of the loop.
        bucket: of all calls to Batch of this process.
        jitter: numbers of 0 to 1.
    """

    def __init__(
        self, client: Client, bucket: TokenBucket, *, jitter: Callable[[], float] = random.random
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._jitter = jitter
        self._is_reached = False
        self.calls: dict[str, int] = {}

    async def submit(self, body: Body) -> str:
        """Submit a job and return its id.

        Raises:
            SubmitUnclearError: nobody knows whether it was accepted.
            ExecutorError: it was not.
        """
        doing = f"submit job {body['jobName']}"
        try:
            reply = await self._call("submit_job", body, doing=doing, is_repeatable=False)
        except BatchThrottledError:
            raise
        except BatchUnavailableError as error:
            raise SubmitUnclearError(error.message, hint=error.hint) from error
        return str(reply["jobId"])

    async def describe(self, job_ids: Sequence[str]) -> list[Seen]:
        """Describe at most 100 jobs; those that Batch has forgotten are left out."""
        return [read_job(job) for job in await self.details(job_ids)]

    async def details(self, job_ids: Sequence[str]) -> list[Mapping[str, Any]]:  # Any: JSON
        """As `describe`, with all that Batch says of them."""
        reply = await self._call("describe_jobs", {"jobs": list(job_ids)}, doing="describe jobs")
        return list(reply["jobs"])

    async def named(self, queue: str, name: str) -> list[Seen]:
        """The jobs of a name in a queue, those that have ended too, the oldest first."""
        wanted = [{"name": "JOB_NAME", "values": [name]}]
        found = self._pages(
            "list_jobs",
            "jobSummaryList",
            {"jobQueue": queue, "filters": wanted},
            doing=f"look for job {name}",
        )
        jobs = [job async for job in found if job.get("jobName") == name]
        return [read_job(job) for job in sorted(jobs, key=lambda j: j.get("createdAt") or 0)]

    async def active(
        self, queue: str, states: Sequence[str] = ACTIVE_STATES
    ) -> AsyncIterator[Listed]:
        """aflow's jobs of a queue that have not ended: one call for each state they may be in."""
        for state in states:
            body = {"jobQueue": queue, "jobStatus": state}
            pages = self._pages("list_jobs", "jobSummaryList", body, doing=f"list jobs of {queue}")
            async for job in pages:
                if OURS in str(job.get("jobDefinition", "")):
                    created_us = int(job.get("createdAt") or 0) * 1000
                    yield Listed(job["jobId"], job["jobName"], state, created_us, size_of(job))

    async def terminate(self, job_id: str, reason: str) -> None:
        """End a job; one that has ended already stays as it is."""
        body = {"jobId": job_id, "reason": reason[:1024] or "not needed any more"}
        await self._call("terminate_job", body, doing=f"terminate job {job_id}")

    async def register(self, body: Body) -> None:
        """Make sure that a job definition is there; its name says its content."""
        name = body["jobDefinitionName"]
        found = await self._call(
            "describe_job_definitions",
            {"jobDefinitionName": name, "status": "ACTIVE"},
            doing=f"look for job definition {name}",
        )
        if not found["jobDefinitions"]:
            await self._call(
                "register_job_definition", body, doing=f"register job definition {name}"
            )

    async def queues(self, names: Sequence[str] = ()) -> list[Mapping[str, Any]]:  # Any: JSON
        """Describe queues: those of these names, or all."""
        body = {"jobQueues": list(names)} if names else {}
        pages = self._pages("describe_job_queues", "jobQueues", body, doing="look for job queues")
        return [queue async for queue in pages]

    async def environments(self, names: Sequence[str]) -> list[Mapping[str, Any]]:  # Any: JSON
        """Describe compute environments, in the order of the names."""
        reply = await self._call(
            "describe_compute_environments",
            {"computeEnvironments": list(names)},
            doing="look at the queue's compute environments",
        )
        found = {e["computeEnvironmentArn"]: e for e in reply["computeEnvironments"]}
        by_name = {e["computeEnvironmentName"]: e for e in found.values()}
        return [e for name in names if (e := found.get(name) or by_name.get(name))]

    async def _pages(
        self, method: str, field: str, body: Body, *, doing: str
    ) -> AsyncIterator[Mapping[str, Any]]:  # Any: JSON
        token: str | None = None
        while True:
            page = {**body, "nextToken": token} if token else body
            reply = await self._call(method, page, doing=doing)
            for item in reply[field]:
                yield item
            token = reply.get("nextToken")
            if not token:
                return

    async def _call(
        self, method: str, body: Body, *, doing: str, is_repeatable: bool = True
    ) -> Any:  # Any: JSON
        """Make one call; again if it was refused for its rate, or failed and may be repeated."""
        for attempt in range(TRIES):
            await asyncio.sleep(self._bucket.take())
            self.calls[method] = self.calls.get(method, 0) + 1
            try:
                return await self._once(method, body, doing)
            except BatchUnavailableError as error:
                is_throttled = isinstance(error, BatchThrottledError)
                if is_throttled:
                    self._bucket.slow_down()
                tries = TRIES if self._is_reached or is_throttled else FIRST_TRIES
                if attempt >= tries - 1 or not (is_throttled or is_repeatable):
                    raise
            backoff_s = min(_BACKOFF_MAX_S, _BACKOFF_S * 2**attempt)
            await asyncio.sleep(self._jitter() * backoff_s)
        raise AssertionError  # the loop returns or raises

    async def _once(self, method: str, body: Body, doing: str) -> Any:  # Any: JSON
        client = await self._client()
        try:
            async with asyncio.timeout(CALL_S):
                reply = await getattr(client, method)(**body)
            self._is_reached = True
            return reply
        except TimeoutError:
            raise BatchUnavailableError(f"cannot {doing}: no answer in {CALL_S:.0f} s") from None
        except Exception as error:
            raise _translated(error, doing) from error


def _translated(error: Exception, doing: str) -> Exception:
    from botocore import exceptions as sdk  # noqa: PLC0415  # a client has imported it already

    if isinstance(error, ExecutorError):
        return error
    if isinstance(error, sdk.ClientError):
        told = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return error_of(status, told.get("Code", ""), told.get("Message", ""), doing=doing)
    if isinstance(error, credential_errors()):
        return BatchDeniedError(f"cannot {doing}: {error}", hint=CREDENTIAL_HINT)
    if isinstance(error, sdk.ParamValidationError):
        return BatchSettingError(f"cannot {doing}: {error}")
    if isinstance(error, sdk.EndpointConnectionError):
        return BatchUnavailableError(f"cannot {doing}: {error}", hint=_ENDPOINT_HINT)
    if isinstance(error, sdk.HTTPClientError | sdk.ConnectionError | OSError):
        return BatchUnavailableError(f"cannot {doing}: {error}")
    return error
