"""The actions of Batch that concern jobs, over HTTP, in front of moto, which has all others.

Besides: PUT /aflow/batch/faults/NAME sets a plan of faults (see faults.py), one without rules takes
it away; PUT /aflow/batch/places says of images, roles and compute environments how they are not as
they should be (see places.py); GET /aflow/batch/counts tells how many requests there were of each
action.

Source: AWS Batch API Reference; botocore's model of the service has the paths and the shapes.
"""

import io
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from engine.errors import ConfigError
from engine.testing.batch import views
from engine.testing.batch.account import NO_OP_TAG
from engine.testing.batch.emulator import Emulator
from engine.testing.batch.faults import read_plan
from engine.testing.batch.fleet import Fleet
from engine.testing.batch.jobs import Job
from engine.testing.batch.limits import (
    ApiError,
    TokenBucket,
    check_definition,
    check_ids,
    check_submission,
    throttled,
)
from engine.testing.batch.places import read_places
from engine.testing.batch.submission import work_of
from engine.testing.batch.visitors import check_visitor

_SCOPE = re.compile(r"Credential=[^/]+/\d+/[^/]+/batch/")
_ACTIONS = {
    "submitjob": "SubmitJob",
    "describejobs": "DescribeJobs",
    "listjobs": "ListJobs",
    "canceljob": "CancelJob",
    "terminatejob": "TerminateJob",
    "registerjobdefinition": "RegisterJobDefinition",
    "describejobdefinitions": "DescribeJobDefinitions",
    "describecomputeenvironments": "DescribeComputeEnvironments",
}
_STATUS = {
    200: "200 OK",
    400: "400 Bad Request",
    403: "403 Forbidden",
    429: "429 Too Many Requests",
}

Json = dict[str, Any]  # Any: JSON


class _LostReplyError(Exception):
    """The request was carried out, and nobody is to hear of it."""


class BatchApi:
    """A WSGI application in front of `moto`'s.

    `access_key` is the one that jobs may be asked for with; None for any.
    """

    def __init__(
        self,
        emulator: Emulator,
        moto: WSGIApplication,
        bucket: TokenBucket,
        access_key: str | None = None,
    ) -> None:
        self._access_key = access_key
        self._emulator, self._moto, self._bucket = emulator, moto, bucket
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._handlers: Mapping[str, Callable[[Json], Json]] = {
            "SubmitJob": self._submit,
            "DescribeJobs": self._describe,
            "ListJobs": self._list,
            "CancelJob": lambda body: self._give_up(body, Fleet.cancel),
            "TerminateJob": lambda body: self._give_up(body, Fleet.terminate),
            "DescribeJobDefinitions": lambda body: {
                "jobDefinitions": self._emulator.account.definitions(body)
            },
            "DescribeComputeEnvironments": lambda body: {
                "computeEnvironments": self._emulator.account.compute_environments(body)
            },
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        runs_jobs = path.startswith(("/aflow/batch/", "/v1/"))
        try:
            check_visitor(environ, self._access_key if runs_jobs else None)
        except ApiError as error:
            return _refuse(error, start_response)
        if path.startswith("/aflow/batch/"):
            return self._aside(path, environ, start_response)
        if not _SCOPE.search(environ.get("HTTP_AUTHORIZATION", "")):
            return self._moto(environ, start_response)
        raw = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(raw)
        name = path.rpartition("/")[2]
        action = _ACTIONS.get(name, name)
        try:
            body = json.loads(raw or b"{}")
            self._let_in(action, body)
            handle = self._handlers.get(action)
            if action == "RegisterJobDefinition":
                check_definition(body)
            if handle is None:
                return self._moto(environ, start_response)
            answer = handle(body)
            self._perhaps_lose(action, body)
        except ApiError as error:
            return _refuse(error, start_response)
        except _LostReplyError:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        return _answer(answer, start_response)

    # -- the way in -------------------------------------------------------------------------------

    def _let_in(self, action: str, body: Json) -> None:
        with self._lock:
            self._counts[action] += 1
            self._bucket.take(self._emulator.clock.now())
            if self._struck("throttle", action, body):
                raise throttled()

    def _perhaps_lose(self, action: str, body: Json) -> None:
        with self._lock:
            if self._struck("lost_reply", action, body):
                raise _LostReplyError

    def _struck(self, fault: str, action: str, body: Json) -> bool:
        plans = self._emulator.fleet.plans
        key = str(self._counts[action])
        job = str(body.get("jobName", ""))
        return plans.strike(fault, job, key, operation=action) is not None

    def _aside(
        self, path: str, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """What tests ask the emulator itself."""
        raw = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        name = path.removeprefix("/aflow/batch/")
        method = environ["REQUEST_METHOD"]
        if method == "PUT" and name.startswith("faults/"):
            try:
                plan = read_plan(raw)
            except ConfigError as error:
                return _refuse(ApiError(error.message), start_response)
            self._emulator.request(lambda fleet, _: fleet.plans.plans.update({name: plan}))
            return _answer({}, start_response)
        if (method, name) == ("PUT", "places"):
            self._emulator.account.places.add(read_places(raw))
            return _answer({}, start_response)
        if (method, name) == ("GET", "counts"):
            with self._lock:
                return _answer(dict(self._counts), start_response)
        return _refuse(ApiError(f"there is no {method} {path}"), start_response)

    # -- actions ----------------------------------------------------------------------------------

    def _submit(self, body: Json) -> Json:
        check_submission(body)
        account = self._emulator.account
        queue = account.queue(body["jobQueue"])
        if queue.get("state") != "ENABLED":
            raise ApiError(
                f"Error executing request, Exception : JobQueue {body['jobQueue']} is not ENABLED"
            )
        no_op = (queue.get("tags") or {}).get(NO_OP_TAG)
        work = work_of(
            account.definition(body["jobDefinition"]),
            body,
            queue_arn=queue["jobQueueArn"],
            no_op_s=None if no_op is None else float(no_op),
        )
        size = (body.get("arrayProperties") or {}).get("size")
        job = self._emulator.request(
            lambda fleet, now: fleet.submit(body["jobName"], work, size, now)
        )
        return {"jobArn": views.job_arn(job), "jobId": job.id, "jobName": job.name}

    def _describe(self, body: Json) -> Json:
        ids = check_ids(body.get("jobs"))

        def describe(fleet: Fleet, now: float) -> list[Json]:
            found = (_described(fleet, each, now) for each in ids)
            return [shown for shown in found if shown]

        return {"jobs": self._emulator.request(describe)}

    def _list(self, body: Json) -> Json:
        asked = [k for k in ("jobQueue", "arrayJobId", "multiNodeJobId") if body.get(k)]
        if len(asked) != 1:
            raise ApiError("Specify one of jobQueue, arrayJobId and multiNodeJobId.")
        queue = self._emulator.account.queue(body["jobQueue"]) if body.get("jobQueue") else None

        def summaries(fleet: Fleet, now: float) -> Json:
            found: list[tuple[Job, int | None]]
            if body.get("multiNodeJobId"):
                job = fleet.jobs.get(body["multiNodeJobId"])
                found = [(j, n) for j in _one(job, body) for n in range(len(j.work.nodes))]
            else:
                found = [(j, None) for j in _listed(fleet, body, queue)]
            entries, token = views.page(found, body)
            shown = [views.job_summary(job, node) for job, node in entries]
            return {"jobSummaryList": shown, **({"nextToken": token} if token else {})}

        return self._emulator.request(summaries)

    def _give_up(self, body: Json, act: Callable[[Fleet, Job, str, float], None]) -> Json:
        wanted = str(body.get("jobId", ""))
        if not body.get("reason"):
            raise ApiError("Error executing request, Exception : reason is required")

        def give_up(fleet: Fleet, now: float) -> None:
            job = fleet.jobs.get(wanted)
            if job is not None:
                act(fleet, job, body["reason"], now)

        self._emulator.request(give_up)
        return {}


def _described(fleet: Fleet, wanted: str, now: float) -> Json | None:
    name, _, node = wanted.rpartition(":job/")[2].partition("#")
    job = fleet.jobs.get(name)
    if job is None or (node and not (node.isdecimal() and int(node) < len(job.work.nodes))):
        return None
    return views.job_detail(job, int(node)) if node else fleet.news.shown(job, now)


def _listed(fleet: Fleet, body: Json, queue: Mapping[str, Any] | None) -> list[Job]:
    """Jobs of a queue, the newest first, without the children of arrays; or those of one array."""
    if queue is None:
        parent = fleet.jobs.get(body["arrayJobId"])
        return views.filtered(parent.children if parent else (), body)
    arn = queue["jobQueueArn"]
    found = (j for j in reversed(fleet.jobs.values()) if not j.parent and j.work.queue_arn == arn)
    return views.filtered(found, body)


def _one(job: Job | None, body: Json) -> list[Job]:
    return views.filtered([job], body) if job else []


def _answer(body: Json, start_response: StartResponse) -> Iterable[bytes]:
    return _send(200, [], json.dumps(body).encode(), start_response)


def _refuse(error: ApiError, start_response: StartResponse) -> Iterable[bytes]:
    body = json.dumps({"message": str(error), "__type": error.code}).encode()
    return _send(error.status, [("x-amzn-ErrorType", error.code)], body, start_response)


def _send(
    status: int, headers: list[tuple[str, str]], body: bytes, start_response: StartResponse
) -> Iterable[bytes]:
    length = ("Content-Length", str(len(body)))
    start_response(_STATUS[status], [("Content-Type", "application/json"), length, *headers])
    return [body]
