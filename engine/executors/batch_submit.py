"""Gets jobs into AWS Batch: grouped, defined, submitted once each, found again after a crash.

SubmitJob has no token that would make a second one harmless. So a submission's name is derived from
its jobs, and whoever does not know whether Batch has taken it, looks for the name.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.errors import ExecutorError
from engine.executors import batch_requests
from engine.executors.base import Job, JobUpdate
from engine.executors.batch_client import BatchClient
from engine.executors.batch_errors import SubmitUnclearError
from engine.executors.batch_requests import Body, Needs, Submission
from engine.executors.batch_states import FAILED

NEEDS = "batch"
"""The key of a job's resources under which its Needs are."""

_UNCLEAR_TRIES = 5
_LOOK_AGAIN_S = 1.0
_TIMEOUT_MARGIN_S = 300.0  # what a container may take before and after its task


class Post(Protocol):
    """Where jobs get their orders, and leave word. Given by who knows stores."""

    async def send(self, parcel: str, jobs: Sequence[Job]) -> Mapping[str, str]:
        """Make the orders of `jobs` durable; return the variables that lead containers to them."""
        ...

    async def sent(self, jobs: Sequence[Job]) -> Mapping[str, Sequence[str]]:
        """The parcels that an earlier process has sent with orders equal to those of `jobs`.

        Of each the names of its jobs in their order; "" for one that is none of `jobs`.
        """
        ...

    async def collect(self) -> Sequence[JobUpdate]:
        """What jobs have said since the last call; of each in order, its end last."""
        ...

    async def settle(self, job: Job) -> bytes | None:
        """The outcome of a job that has ended and has not said so, if it left one."""
        ...


class Accepted(Struct, frozen=True):
    """What Batch has taken. If `is_unclear`, there may be another job of the same name."""

    submission: Submission
    job_id: str
    is_unclear: bool = False

    def id_of(self, index: int) -> str:
        """The id of one of its jobs."""
        return self.job_id if self.submission.size == 1 else f"{self.job_id}:{index}"


class Submitter:
    """Submits for one executor.

    Args:
        client: speaks to Batch.
        post: takes the orders.
        command: starts a container.
        array_max: the most jobs of one array; 1 for none.
    """

    def __init__(
        self, client: BatchClient, post: Post, command: Sequence[str], array_max: int
    ) -> None:
        self._client = client
        self._post = post
        self._command = command
        self._array_max = array_max
        self._defining: dict[str, asyncio.Lock] = {}
        self._defined: set[str] = set()
        self._unclear: list[Accepted] = []

    def submissions(self, jobs: Sequence[Job]) -> list[Submission]:
        """Group jobs that are equal but for their orders, in arrays as large as may be."""
        groups: dict[tuple[bytes, float | None], list[Job]] = {}
        for job in jobs:
            key = msgspec.json.encode(needs_of(job)), job.deadline_s
            groups.setdefault(key, []).append(job)
        return [
            self._submission(part)
            for alike in groups.values()
            for part in batch_requests.array_chunks(alike, self._array_max)
        ]

    def again(self, job: Job) -> Submission:
        """The submission of a job that was moved: under another name than what it was before."""
        what = self._submission([job])
        return replace(what, parcel=batch_requests.moved_name(job.name))

    def _submission(self, jobs: Sequence[Job]) -> Submission:
        names, limit_s = [job.name for job in jobs], jobs[0].deadline_s
        timeout_s = None if limit_s is None else limit_s + _TIMEOUT_MARGIN_S
        parcel = batch_requests.parcel_name(names)
        return Submission(parcel, names, needs_of(jobs[0]), timeout_s)

    async def sent(self, jobs: Sequence[Job]) -> list[Submission]:
        """What an earlier process has sent of `jobs`; whether Batch has it is to be found out.

        Raises:
            StoreError: the store does not answer.
        """
        by_name = {job.name: job for job in jobs}
        found = await self._post.sent(jobs)
        submissions: list[Submission] = []
        for parcel, names in found.items():
            job = next(by_name[n] for n in names if n)
            if batch_requests.is_moved(parcel):
                job = moved(job) or job
            submissions.append(Submission(parcel, names, needs_of(job)))
        return submissions

    async def find(self, what: Submission) -> Accepted | None:
        """What Batch has of a submission that has not failed; the rest is to be submitted again.

        Raises:
            ExecutorError: Batch does not answer.
        """
        there = await self._client.named(what.needs.queue, what.parcel)
        if not there:
            return None
        accepted = Accepted(what, there[0].job_id)
        await self._end_copies_of(accepted)
        ids = [accepted.id_of(index) for index, name in enumerate(what.names) if name]
        failed: set[str] = set()
        for page in batch_requests.describe_pages(ids):
            answers = await self._client.describe(page)
            failed |= {seen.job_id for seen in answers if seen.state == FAILED}
        names = [
            "" if accepted.id_of(index) in failed else name for index, name in enumerate(what.names)
        ]
        return Accepted(replace(what, names=names), accepted.job_id) if any(names) else None

    async def submit(self, what: Submission, jobs: Sequence[Job]) -> Accepted:
        """Send the orders, then have Batch start the jobs: once, whatever becomes of the answer.

        Raises:
            ExecutorError, StoreError, LimitExceededError: it does not take them.
        """
        variables = await self._post.send(what.parcel, jobs)
        body = batch_requests.submit_body(what, await self._definition(what.needs), variables)
        accepted = await self._submit_once(body, what)
        if accepted.is_unclear:
            self._unclear.append(accepted)
        return accepted

    async def _submit_once(self, body: Body, what: Submission) -> Accepted:
        """Submit; if the answer is lost, look by name whether the job is there, else again."""
        for tries_left in reversed(range(_UNCLEAR_TRIES)):
            try:
                job_id = await self._client.submit(body)
                return Accepted(what, job_id, is_unclear=tries_left < _UNCLEAR_TRIES - 1)
            except SubmitUnclearError:
                # What was just accepted may take a moment to be listed.
                for pause_s in (0.0, _LOOK_AGAIN_S):
                    await asyncio.sleep(pause_s)
                    if found := await self._client.named(what.needs.queue, what.parcel):
                        return Accepted(what, found[0].job_id, is_unclear=True)
                if not tries_left:
                    raise
        raise AssertionError  # the loop returns or raises

    async def _definition(self, needs: Needs) -> str:
        body = batch_requests.definition(needs, self._command)
        name = str(body["jobDefinitionName"])
        async with self._defining.setdefault(name, asyncio.Lock()):
            if name not in self._defined:
                await self._client.register(body)
                self._defined.add(name)
        return name

    async def end_copies(self) -> None:
        """End what a SubmitJob has started whose answer was lost, if it did so after all.

        Raises:
            ExecutorError: Batch does not answer; what is left is looked at by the next call.
        """
        while self._unclear:
            await self._end_copies_of(self._unclear[-1])
            self._unclear.pop()

    async def _end_copies_of(self, accepted: Accepted) -> None:
        what = accepted.submission
        for seen in await self._client.named(what.needs.queue, what.parcel):
            if seen.job_id != accepted.job_id and not seen.is_ended:
                await self._client.terminate(seen.job_id, "a copy of another job")


def moved(job: Job) -> Job | None:
    """The job as it is where machines are not taken away; None if it names no such queue."""
    on_demand = needs_of(job).on_demand
    if on_demand is None:
        return None
    return replace(job, resources={**job.resources, NEEDS: on_demand})


def needs_of(job: Job) -> Needs:
    """What a job needs of Batch.

    Raises:
        ExecutorError: it does not say.
    """
    needs = job.resources.get(NEEDS)
    if not isinstance(needs, Needs):
        raise ExecutorError(f"job {job.name} does not say what it needs of Batch")
    return needs
