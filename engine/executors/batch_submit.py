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
from engine.executors.base import Exit, ExitKind, Job, JobUpdate
from engine.executors.batch_client import BatchClient
from engine.executors.batch_errors import SubmitUnclearError
from engine.executors.batch_packing import Packing
from engine.executors.batch_requests import Body, Needs, Submission
from engine.executors.batch_states import FAILED

NEEDS = "batch"
"""The key of a job's resources under which its Needs are."""

_UNCLEAR_TRIES = 5
_LOOK_AGAIN_S = 1.0
_TIMEOUT_MARGIN_S = 300.0  # what a container may take before and after its task


class Sent(Struct, frozen=True):
    """A parcel's jobs in their order, `pack` to a container; "" for one that is none of ours."""

    names: Sequence[str]
    pack: int = 1


class Post(Protocol):
    """Where jobs get their orders, and leave word. Given by who knows stores."""

    async def send(self, parcel: str, jobs: Sequence[Job], pack: int) -> Mapping[str, str]:
        """Make the orders of `jobs` durable, so many for a container; return the variables that
        lead containers to them."""
        ...

    async def sent(self, jobs: Sequence[Job]) -> Mapping[str, Sent]:
        """The parcels that an earlier process has sent with orders equal to those of `jobs`."""
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
        """The id of the container of one of its jobs."""
        what = self.submission
        return what.id_of(self.job_id, index // what.pack)


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
        self.packing = Packing()

    def submissions(self, jobs: Sequence[Job], now_s: float) -> tuple[list[Submission], list[Job]]:
        """Group jobs that are equal but for their orders, in arrays as large as may be; the jobs
        of a gang are one submission, and wait for no others.

        Returns:
            what is to be submitted now, and the jobs that wait for others; see `packing`.

        Raises:
            ExecutorError: a job does not say what it needs.
        """
        groups: dict[tuple[bytes, float | None], list[Job]] = {}
        gangs: dict[str, list[Job]] = {}
        for job in jobs:
            if job.gang is not None:
                gangs.setdefault(job.gang.name, []).append(job)
                continue
            key = msgspec.json.encode(needs_of(job)), job.deadline_s
            groups.setdefault(key, []).append(job)
        found = [replace(submission(gang, 1), is_gang=True) for gang in gangs.values()]
        waiting: list[Job] = []
        self.packing.begin({needs_of(alike[0]).group for alike in groups.values()})
        for alike in groups.values():
            loads, rest = self.packing.loads(needs_of(alike[0]), alike, now_s)
            waiting += rest
            for load in loads:
                chunks = batch_requests.array_chunks(load.jobs, self._array_max, pack=load.pack)
                found += [submission(part, min(load.pack, len(part))) for part in chunks]
        return found, waiting

    def note_end(self, job: Job, exit: Exit, took_us: int | None) -> None:
        """A job has ended; if Batch had it, others may be packed by how long it took."""
        if isinstance(needs := job.resources.get(NEEDS), Needs):
            is_alike = exit.kind is ExitKind.RETURNED
            took_s = took_us / 1e6 if is_alike and took_us is not None else None
            self.packing.ended(needs, job.name, took_s)

    def again(self, job: Job) -> Submission:
        """The submission of a job that was moved: under another name than what it was before."""
        return replace(submission([job], 1), parcel=batch_requests.moved_name(job.name))

    async def sent(self, jobs: Sequence[Job]) -> list[Submission]:
        """What an earlier process has sent of `jobs`; whether Batch has it is to be found out.

        Raises:
            StoreError: the store does not answer.
        """
        by_name = {job.name: job for job in jobs}
        found = await self._post.sent(jobs)
        submissions: list[Submission] = []
        for parcel, it in found.items():
            job = next(by_name[n] for n in it.names if n)
            if batch_requests.is_moved(parcel):
                job = moved(job) or job
            submissions.append(Submission(parcel, it.names, needs_of(job), pack=it.pack))
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
        if what.is_gang and any(job.gang and len(jobs) < job.gang.size for job in jobs):
            raise ExecutorError("a part of a gang was cancelled before it began")
        variables = await self._post.send(what.parcel, jobs, what.pack)
        nodes = what.size if what.is_gang else 0
        name = await self._definition(what.needs, nodes)
        body = batch_requests.submit_body(what, name, variables)
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

    async def _definition(self, needs: Needs, nodes: int) -> str:
        body = batch_requests.definition(needs, self._command, nodes=nodes)
        name = str(body["jobDefinitionName"])
        async with self._defining.setdefault(name, asyncio.Lock()):
            if name not in self._defined:
                await self._client.register(body)
                self._defined.add(name)
        return name

    async def end_leftovers(self, husks: list[str]) -> None:
        """End what a SubmitJob has started whose answer was lost, if it did so after all; and the
        jobs of these ids, which are taken off the list.

        Raises:
            ExecutorError: Batch does not answer; what is left is looked at by the next call.
        """
        for job_id in list(husks):
            await self._client.terminate(job_id, "a node of it died, and no other is at work")
            husks.remove(job_id)
        for accepted in list(self._unclear):
            await self._end_copies_of(accepted)
            self._unclear.remove(accepted)

    async def _end_copies_of(self, accepted: Accepted) -> None:
        what = accepted.submission
        for seen in await self._client.named(what.needs.queue, what.parcel):
            if seen.job_id != accepted.job_id and not seen.is_ended:
                await self._client.terminate(seen.job_id, "a copy of another job")


def submission(jobs: Sequence[Job], pack: int) -> Submission:
    """Jobs that are equal but for their orders, as they are submitted."""
    names, limit_s = [job.name for job in jobs], jobs[0].deadline_s
    timeout_s = None if limit_s is None else limit_s * pack + _TIMEOUT_MARGIN_S
    parcel = batch_requests.parcel_name(names)
    return Submission(parcel, names, needs_of(jobs[0]), timeout_s, pack)


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
