"""AWS Batch and an object store in memory, for tests of BatchExecutor: no process, no socket.

What a job does is its spec: b"returns", b"exits", b"waits", b"vanishes" (Batch forgets it),
b"silent" (it commits and cannot say so), b"stays" (it returns, and its container goes on, as the
main node of a gang does), b"stuck" (no machine takes it), b"reclaimed" (its machines are taken
away, but in queue "od"), b"lastly" (it has failed, and says so only a while after the others have
ended) or b"died" (without a word, and Batch says so as late). Jobs move on by the clock of the
loop, so virtual time works.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

from engine.aws.rates import TokenBucket
from engine.executors.base import Exit, ExitKind, Job, JobEnded, JobOutput, JobStarted, JobUpdate
from engine.executors.batch import BatchExecutor, BatchExecutorConfig
from engine.executors.batch_client import BatchClient
from engine.executors.batch_requests import Needs
from engine.executors.batch_submit import NEEDS, Sent

STEP_S = 0.02
LATE_STEPS = 20
NOT_KEPT = frozenset((b"vanishes",))


def job(name: str, spec: bytes = b"returns", **more: Any) -> Job:
    return Job(name, spec, resources={NEEDS: Needs("queue", "image", **more)})


@dataclass
class Submitted:
    """A job as Batch has it: one, an array, or one of many nodes."""

    job_id: str
    name: str
    parcel: str
    size: int
    since_s: float
    queue: str = "queue"
    is_gang: bool = False
    terminated: dict[int, str] = field(default_factory=dict)

    @property
    def is_array(self) -> bool:
        return self.size > 1 and not self.is_gang


class BatchWorld:
    """The SDK's client of Batch, and the post of one run. `faults` are taken from the front."""

    def __init__(self) -> None:
        self.jobs: dict[str, Submitted] = {}
        self.parcels: dict[str, list[Job]] = {}
        self.packs: dict[str, int] = {}
        self.definitions: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.faults: dict[str, list[str]] = {}
        self.heard: set[tuple[str, int, str]] = set()
        self.bodies: list[dict[str, Any]] = []
        self.step_s = STEP_S
        self.is_mute = False  # jobs leave no word: Batch alone says how they ended
        self.described: Counter[str] = Counter()

    # -- the executor ----------------------------------------------------------------------------

    def executor(self, **settings: Any) -> BatchExecutor:
        async def client() -> "BatchWorld":
            return self

        fast = {
            "listen_min_s": 0.01,
            "listen_max_s": 0.05,
            "ask_min_s": 0.02,
            "ask_max_s": 0.1,
            "gather_s": 0.0,
            "pages_s": 1000.0,
        }
        config = BatchExecutorConfig(("true",), **{**fast, **settings})
        clock = asyncio.get_running_loop().time
        bucket = TokenBucket(1000.0, 1000.0, clock=clock)
        return BatchExecutor(BatchClient(client, bucket, jitter=lambda: 0.1), self, config)

    # -- the SDK's client ------------------------------------------------------------------------

    async def submit_job(self, **body: Any) -> Mapping[str, Any]:
        fault = self._call("submit_job")
        if fault == "throttled":
            raise _error(429, "TooManyRequestsException")
        if fault == "refused":
            raise _error(400, "ClientException")
        self.bodies.append(body)
        job_id = f"id-{len(self.jobs)}"
        nodes = body.get("nodeOverrides", {}).get("numNodes", 0)
        size = nodes or body.get("arrayProperties", {}).get("size", 1)
        now_s = asyncio.get_running_loop().time()
        name = body["jobName"]
        self.jobs[job_id] = Submitted(
            job_id, name, name, size, now_s, queue=body["jobQueue"], is_gang=nodes > 0
        )
        if fault == "reply lost":
            raise ReadTimeoutError(endpoint_url="http://batch")
        return {"jobId": job_id}

    async def describe_jobs(self, *, jobs: Sequence[str]) -> Mapping[str, Any]:
        fault = self._call("describe_jobs")
        if fault == "throttled":
            raise _error(429, "TooManyRequestsException")
        assert len(jobs) <= 100
        self.described.update(jobs)
        found = [d for job_id in jobs if (d := self._describe(job_id)) is not None]
        return {"jobs": [] if fault == "empty" else found}

    async def list_jobs(self, **body: Any) -> Mapping[str, Any]:
        self._call("list_jobs")
        [wanted] = body["filters"]
        assert wanted["name"] == "JOB_NAME"
        found = [
            {"jobId": j.job_id, "jobName": j.name, "status": "RUNNING", "createdAt": number}
            for number, j in enumerate(self.jobs.values())
            if j.name in wanted["values"] and j.queue == body["jobQueue"] and not j.terminated
        ]
        return {"jobSummaryList": found}

    async def terminate_job(self, *, jobId: str, reason: str) -> Mapping[str, Any]:
        self._call("terminate_job")
        parent, _, index = jobId.partition(":")
        submitted = self.jobs[parent]
        for each in [int(index)] if index else range(submitted.size):
            submitted.terminated.setdefault(each, reason)
        return {}

    async def describe_job_definitions(self, **body: Any) -> Mapping[str, Any]:
        self._call("describe_job_definitions")
        name = body["jobDefinitionName"]
        return {"jobDefinitions": [{"jobDefinitionName": name}] * (name in self.definitions)}

    async def register_job_definition(self, **body: Any) -> Mapping[str, Any]:
        self._call("register_job_definition")
        assert body["jobDefinitionName"] not in self.definitions
        self.definitions.add(body["jobDefinitionName"])
        return {}

    # -- the post --------------------------------------------------------------------------------

    async def send(self, parcel: str, jobs: Sequence[Job], pack: int) -> Mapping[str, str]:
        self.parcels[parcel] = list(jobs)
        self.packs[parcel] = pack
        return {"PARCEL": parcel}

    async def sent(self, jobs: Sequence[Job]) -> Mapping[str, Sent]:
        mine = {job.name for job in jobs}
        found = {
            parcel: [j.name if j.name in mine else "" for j in there]
            for parcel, there in self.parcels.items()
        }
        return {p: Sent(names, self.packs[p]) for p, names in found.items() if any(names)}

    async def collect(self) -> Sequence[JobUpdate]:
        if self.is_mute:
            return []
        updates: list[JobUpdate] = []
        for submitted in self.jobs.values():
            for number, each in enumerate(self.parcels[submitted.parcel]):
                updates += self._words(submitted, number, each)
        return updates

    async def settle(self, job: Job) -> bytes | None:
        return b"done" if job.spec == b"silent" else None

    # -- what jobs do ----------------------------------------------------------------------------

    def running(self) -> list[str]:
        """The ids of jobs, and children, that have neither ended nor been terminated."""
        return [
            f"{s.job_id}:{i}"
            for s in self.jobs.values()
            for i in range(s.size)
            if self._state(s, i) == "RUNNING"
        ]

    def _call(self, name: str) -> str | None:
        self.calls[name] += 1
        faults = self.faults.get(name)
        return faults.pop(0) if faults else None

    def _age(self, submitted: Submitted) -> int:
        """How many steps ago it was submitted."""
        return int((asyncio.get_running_loop().time() - submitted.since_s) / self.step_s + 1e-6)

    def _state(self, submitted: Submitted, index: int) -> str:
        specs = [job.spec for job in self._jobs_of(submitted, index)]
        age = self._age(submitted)
        if {b"lastly", b"died"} & set(specs):
            return "RUNNING" if age < LATE_STEPS else "FAILED"
        if index in submitted.terminated:
            return "FAILED"
        if age < 2:
            return ("SUBMITTED", "RUNNABLE")[age]
        if b"stuck" in specs:
            return "RUNNABLE"
        if b"reclaimed" in specs and submitted.queue != "od":
            return "FAILED"
        if age < 4 or {b"waits", b"stays"} & set(specs):
            return "RUNNING"
        return "FAILED" if b"exits" in specs else "SUCCEEDED"

    def _jobs_of(self, submitted: Submitted, index: int) -> list[Job]:
        """The jobs of one container, the first first."""
        pack = self.packs[submitted.parcel]
        return self.parcels[submitted.parcel][index * pack :][:pack]

    def _describe(self, job_id: str) -> dict[str, Any] | None:
        parent, _, index = job_id.replace("#", ":").partition(":")
        submitted = self.jobs.get(parent)
        if submitted is None:
            return None
        if submitted.is_array and not index:
            states = Counter(self._state(submitted, i) for i in range(submitted.size))
            ended = states["SUCCEEDED"] + states["FAILED"] == submitted.size
            state = ("FAILED" if states["FAILED"] else "SUCCEEDED") if ended else "PENDING"
            array = {"size": submitted.size, "statusSummary": dict(states)}
            return {"jobId": job_id, "status": state, "arrayProperties": array}
        specs = {job.spec for job in self._jobs_of(submitted, int(index or 0))}
        if specs & NOT_KEPT:
            return None
        state = self._state(submitted, int(index or 0))
        found: dict[str, Any] = {"jobId": job_id, "status": state, "startedAt": 1000}
        if state == "FAILED":
            is_ended = int(index or 0) in submitted.terminated and b"died" not in specs
            code = 143 if is_ended else 3
            found |= {"container": {"exitCode": code}, "stoppedAt": 2000}
            found["statusReason"] = "Essential container in task exited"
            if b"reclaimed" in specs:
                found["statusReason"] = "Host EC2 (instance i-0) terminated."
        return found

    def _words(self, submitted: Submitted, number: int, job: Job) -> list[JobUpdate]:
        index = number // self.packs[submitted.parcel]
        is_silent = self._age(submitted) < 2 or job.spec == b"stuck"
        if job.spec == b"lastly" and self._age(submitted) >= LATE_STEPS - 1:
            exit = Exit(ExitKind.RETURNED)
            key = submitted.job_id, number, "d"
            is_fresh = key not in self.heard
            self.heard.add(key)
            ended = JobEnded(job.name, exit, 1_000_000, 2_000_000, b"failed")
            return [ended] if is_fresh else []
        if index in submitted.terminated or is_silent:
            return []
        said: dict[str, JobUpdate] = {"a": JobStarted(job.name, 1_000_000)}
        if job.spec == b"waits":
            said["b"] = JobOutput(job.name, "stdout", ((1, "waiting"),))
        is_done = job.spec in (b"returns", b"stays")
        is_done |= (job.spec, submitted.queue) == (b"reclaimed", "od")
        if is_done and self._age(submitted) >= 3:
            said["b"] = JobOutput(job.name, "stdout", ((1, "out"),))
            said["c"] = JobOutput(job.name, "stderr", ((2, "err"),))
            exit = Exit(ExitKind.RETURNED)
            said["d"] = JobEnded(job.name, exit, 1_000_000, 2_000_000, b"done")
        fresh = {k: u for k, u in said.items() if (submitted.job_id, number, k) not in self.heard}
        self.heard.update((submitted.job_id, number, k) for k in fresh)
        return list(fresh.values())


def _error(status: int, code: str) -> ClientError:
    told = {"Error": {"Code": code, "Message": "no"}}
    return ClientError({**told, "ResponseMetadata": {"HTTPStatusCode": status}}, "Call")
