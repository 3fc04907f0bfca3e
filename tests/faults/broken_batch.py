"""Set-ups of AWS Batch that are broken, and what `aflow doctor batch` and `aflow run` say of each.

`python -m tests.faults.broken_batch` prints the table, as Markdown, with the seconds of each; after
a run that has failed it mends the set-up and resumes, and says what was done again.
"""

import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from engine.errors import (
    EXIT_AUTH,
    EXIT_CONFIG,
    EXIT_INFRASTRUCTURE,
    EXIT_LIMIT,
    EXIT_RUN_FAILED,
)
from engine.testing.fault_proxy import Faults
from engine.testing.servers import ServerAddress, shared_server
from tests.faults.bad_inputs import Said, aflow
from tests.faults.remote_site import proxied, say
from tests.faults.wrong_s3 import NOBODY
from tests.servers import BATCH_OPTIONS, BUCKET, QUEUE, make_bucket

FLOW = """
import os
from engine import FlowSpec, batch, step


class Broken(FlowSpec):
    @step
    def start(self):
        open("began", "a").write("x")
        self.next(self.work)

    @batch(ATTRIBUTES)
    @step
    def work(self):
        print("worked")
        self.next(self.end)

    @step
    def end(self):
        pass
"""
ROLE = "arn:aws:iam::123456789012:role/"
QUEUES = ("broken-disabled", "broken-invalid", "broken-off", "broken-small", "broken-steady")
FINE, TAKEN_BY_NOBODY = f"{ROLE}broken-fine", f"{ROLE}broken-closed"
IMAGES = ("broken/python:3.9", "broken/none:1")
OLD_PYTHON = """#!/bin/sh
exec {python} -c 'import sys; sys.implementation.cache_tag = "cpython-39"; exec(sys.argv[1])' "$2"
"""
NOT_ASKED = "a job will tell"


@dataclass(frozen=True)
class Broken:
    """A set-up. `variables` and `attributes` (of @batch) replace those of one that works.

    `answer` is what requests to Batch are answered with whose path has `path` in it; `s3_answer` is
    for S3. `doctor` and `hint` are words of a finding and of its hint; `says` and `mend` those of
    the error of a run. `is_late` is a run that a job of Batch fails.
    """

    name: str
    exit_code: int
    doctor: str
    hint: str
    says: str
    mend: str
    variables: Mapping[str, str] = field(default_factory=dict)
    attributes: str = ""
    answer: str = ""
    path: str = "/v1/"
    s3_answer: str = ""
    is_late: bool = False


def _queue(name: str) -> Mapping[str, str]:
    return {"AFLOW_BATCH_QUEUE": name}


_SKEW = "Signature expired: 20261124T080000Z is now earlier than 20261124T150000Z"
CASES = [
    Broken(
        *("no credentials", EXIT_AUTH, "no AWS credentials", "aws sso login"),
        *("credentials", "aws sso login", NOBODY),
    ),
    Broken(
        *("unknown access key", EXIT_AUTH, "UnrecognizedClient", "access key"),
        *("UnrecognizedClient", "access key"),
        answer="403:UnrecognizedClientException",
    ),
    Broken(
        *("expired token", EXIT_AUTH, "ExpiredToken", "log in again", "ExpiredToken"),
        "log in again",
        answer="403:ExpiredTokenException",
    ),
    Broken(
        *("clock is off", EXIT_AUTH, "Signature expired", "clock", "Signature expired", "clock"),
        answer=f"403:InvalidSignatureException:{_SKEW}",
    ),
    Broken(
        *("wrong queue", EXIT_CONFIG, "there is no job queue 'nowhere'", QUEUE),
        *("there is no job queue 'nowhere'", QUEUE, _queue("nowhere")),
    ),
    Broken(
        *("disabled queue", EXIT_CONFIG, "it is DISABLED", "enable it"),
        *("it is DISABLED", "enable it", _queue("broken-disabled")),
    ),
    Broken(
        *("invalid compute environment", EXIT_CONFIG, "INVALID: CLIENT_ERROR", "mend one"),
        *("INVALID: CLIENT_ERROR", "mend one", _queue("broken-invalid")),
    ),
    Broken(
        *("disabled compute environment", EXIT_CONFIG, "broken-off is DISABLED", "mend one"),
        *("broken-off is DISABLED", "mend one", _queue("broken-off")),
    ),
    Broken(
        *("several queues, none named", EXIT_CONFIG, "job queues that take jobs", "batch_queue"),
        *("job queues that take jobs", "batch_queue", _queue("")),
    ),
    Broken(
        *(
            "job role is not there",
            EXIT_RUN_FAILED,
            "there is no role 'broken-none'",
            "batch_job_role",
        ),
        *("role cannot be taken", "trust policy"),
        {"AFLOW_BATCH_JOB_ROLE": f"{ROLE}broken-none"},
        is_late=True,
    ),
    Broken(
        *(
            "job role cannot be taken",
            EXIT_RUN_FAILED,
            "cannot be taken by containers",
            "ecs-tasks",
        ),
        *("role cannot be taken", "trust policy"),
        {"AFLOW_BATCH_JOB_ROLE": TAKEN_BY_NOBODY},
        is_late=True,
    ),
    Broken(
        *("no execution role on Fargate", EXIT_CONFIG, "needs an execution role", "execution_role"),
        *("needs an execution role", "execution_role", {"AFLOW_BATCH_EXECUTION_ROLE": ""}),
    ),
    Broken(
        *("role may not read the bucket", EXIT_RUN_FAILED, NOT_ASKED, ""),
        *("may not read the datastore", "batch_job_role"),
        {"AFLOW_BATCH_JOB_ROLE": f"{ROLE}broken-stranger"},
        is_late=True,
    ),
    Broken(
        *("image is not there", EXIT_RUN_FAILED, NOT_ASKED, "", "there is no such image"),
        "batch_image",
        {"AFLOW_BATCH_IMAGE": "broken/missing:1"},
        is_late=True,
    ),
    Broken(
        *("image with an older Python", EXIT_RUN_FAILED, NOT_ASKED, "", "another Python"),
        "minor version",
        {"AFLOW_BATCH_IMAGE": IMAGES[0]},
        is_late=True,
    ),
    Broken(
        *("image without Python", EXIT_RUN_FAILED, NOT_ASKED, "", "could not be started"),
        "python3",
        {"AFLOW_BATCH_IMAGE": IMAGES[1]},
        is_late=True,
    ),
    Broken(
        *("memory beyond the queue", EXIT_LIMIT, "", "", "needs 128 GiB", "larger machines"),
        _queue("broken-small"),
        'memory="128G"',
    ),
    Broken(
        *("vCPUs beyond the queue", EXIT_LIMIT, "", "", "needs 16 vCPUs", "fewer"),
        _queue("broken-small"),
        "cpu=16",
    ),
    Broken(
        *("GPU where there is none", EXIT_LIMIT, "", "", "needs 1 GPU", "larger machines"),
        _queue("broken-small"),
        "gpu=1",
    ),
    Broken(
        *("privileged on Fargate", EXIT_CONFIG, "", "", "has no privileged", "EC2"),
        attributes="privileged=True",
    ),
    Broken(
        *("more than Fargate has", EXIT_LIMIT, "", "", "no size with 32 vCPUs", "120 GiB"),
        attributes="cpu=32",
    ),
    Broken(
        *("variables too long", EXIT_LIMIT, "Batch takes 8,192", "variables"),
        *("Batch takes 8,192", "variables", {"AFLOW_USER": "u" * 8_200}),
    ),
    Broken(
        *("definition too large", EXIT_LIMIT, "", "", "Batch takes 24,576", "fewer volumes"),
        attributes='efs_volumes=[f"fs-{n:0100}" for n in range(120)]',
    ),
    Broken(
        *("no such bucket", EXIT_CONFIG, "NoSuchBucket", "create the bucket", "NoSuchBucket"),
        "create the bucket",
        {"AFLOW_DATASTORE": "s3://no-such-bucket/x"},
    ),
    Broken(
        *("bucket denied", EXIT_AUTH, "AccessDenied", "s3:PutObject", "AccessDenied"),
        "s3:PutObject",
        s3_answer="403:AccessDenied",
    ),
    Broken(
        *("bucket of another region", EXIT_CONFIG, "Permanent", "s3_region", "Permanent"),
        "s3_region",
        s3_answer="301:PermanentRedirect",
    ),
    Broken(
        *("wrong region of Batch", EXIT_CONFIG, "there is no job queue", "this region"),
        *("there is no job queue", "this region", {"AFLOW_BATCH_REGION": "eu-west-3"}),
    ),
    Broken(
        *("wrong endpoint", EXIT_INFRASTRUCTURE, "Could not connect", "batch_endpoint_url"),
        *("Could not connect", "batch_endpoint_url"),
        {"AFLOW_BATCH_ENDPOINT_URL": "http://127.0.0.1:9"},
    ),
    Broken(
        *("an endpoint that is not Batch", EXIT_CONFIG, "404", "batch_endpoint_url", "404"),
        "batch_endpoint_url",
        answer="404:",
    ),
    Broken(
        *("datastore is a directory", EXIT_CONFIG, "containers cannot see it", "--datastore s3://"),
        *("needs a datastore in S3", "--datastore s3://", {"AFLOW_DATASTORE": "here"}),
    ),
    Broken(
        *("RegisterJobDefinition denied", EXIT_AUTH, "batch:RegisterJobDefinition", "IAM"),
        *("register job definition", "aflow doctor batch"),
        {"AFLOW_BATCH_IMAGE": "broken/unknown:1"},  # of which there is no definition yet
        answer="403:AccessDeniedException",
        path="/v1/registerjobdefinition",
        is_late=True,
    ),
    Broken(
        *("SubmitJob denied", EXIT_AUTH, "batch:SubmitJob", "IAM", "submit job"),
        "aflow doctor batch",
        answer="403:AccessDeniedException",
        path="/v1/submitjob",
        is_late=True,
    ),
]


# -- the place --------------------------------------------------------------------------------


def prepare(emulator: ServerAddress, folder: Path) -> None:
    """Make the queues, roles and images that are broken, unless they are there."""
    (folder / "old").mkdir(exist_ok=True)
    (folder / "none").mkdir(exist_ok=True)
    old = folder / "old" / "python3"
    if not old.exists():
        old.write_text(OLD_PYTHON.format(python=sys.executable))
        old.chmod(0o755)
    stranger = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nobody"}
    _put(
        emulator,
        "places",
        {
            "images": {
                IMAGES[0]: f"{folder / 'old'}:/usr/bin:/bin",
                IMAGES[1]: str(folder / "none"),
                "broken/missing:1": "",
            },
            "roles": {
                "broken-none": None,
                "broken-closed": None,
                "broken-stranger": stranger,
            },
            "invalid": {"broken-invalid": "CLIENT_ERROR - Not authorized to AssumeRole"},
        },
    )
    clients = _Clients(emulator)
    for name in QUEUES:
        with suppress(ClientError):  # another process has made it
            clients.make_queue(name)
    trust = {"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}}
    for name, statements in (
        ("broken-fine", [trust]),
        ("broken-stranger", [trust]),
        ("broken-closed", []),
    ):
        with suppress(ClientError):
            document = json.dumps({"Version": "2012-10-17", "Statement": statements})
            clients.iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)


class _Clients:
    def __init__(self, emulator: ServerAddress) -> None:
        def client(service: str) -> Any:  # Any: the SDK's
            return boto3.client(
                service,
                endpoint_url=emulator.endpoint_url,
                region_name="us-east-1",
                aws_access_key_id=emulator.variables["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=emulator.variables["AWS_SECRET_ACCESS_KEY"],
            )

        self.batch, self.iam, self.ec2 = client("batch"), client("iam"), client("ec2")

    def make_queue(self, name: str) -> None:
        """Make a queue and its compute environment, with what its name says."""
        is_small = name == "broken-small"
        subnet = self.ec2.describe_subnets()["Subnets"][0]
        group = self.ec2.describe_security_groups()["SecurityGroups"][0]
        resources: dict[str, Any] = {
            "type": "EC2" if is_small else "FARGATE",
            "maxvCpus": 8,
            "subnets": [subnet["SubnetId"]],
            "securityGroupIds": [group["GroupId"]],
        }
        if is_small:
            with suppress(ClientError):
                self.iam.create_instance_profile(InstanceProfileName=name)
            profile = self.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
            resources |= {
                "minvCpus": 0,
                "instanceTypes": ["m5.2xlarge"],
                "instanceRole": profile["Arn"],
            }
        made = self.batch.create_compute_environment(
            computeEnvironmentName=name,
            type="MANAGED",
            state="DISABLED" if name == "broken-off" else "ENABLED",
            computeResources=resources,
            serviceRole=f"{ROLE}{QUEUE}-service",
        )
        self.batch.create_job_queue(
            jobQueueName=name,
            state="DISABLED" if name == "broken-disabled" else "ENABLED",
            priority=1,
            computeEnvironmentOrder=[
                {"order": 1, "computeEnvironment": made["computeEnvironmentArn"]}
            ],
        )


def _put(emulator: ServerAddress, name: str, told: object) -> None:
    url = f"{emulator.endpoint_url}/aflow/batch/{name}"
    request = urllib.request.Request(url, json.dumps(told).encode(), method="PUT")
    urllib.request.urlopen(request, timeout=10.0).close()


Servers = tuple[ServerAddress, ServerAddress]
"""The emulator of Batch, and an S3 that looks at signatures."""


def working(servers: Servers, place: Path, cache: Path) -> dict[str, str]:
    """The variables of a set-up in which nothing is broken."""
    emulator, s3 = servers
    return {
        **s3.variables,
        "AWS_ENDPOINT_URL": emulator.endpoint_url,
        "AFLOW_S3_ENDPOINT_URL": s3.endpoint_url,
        "AFLOW_DATASTORE": f"s3://{BUCKET}/{place.parent.name}/{place.name}",
        "AFLOW_BATCH_QUEUE": QUEUE,
        "AFLOW_BATCH_EXECUTION_ROLE": FINE,
        "AFLOW_BATCH_JOB_ROLE": FINE,
        "XDG_CACHE_HOME": str(cache),
    }


@contextmanager
def met(case: Broken, servers: Servers, place: Path, cache: Path) -> Iterator[dict[str, str]]:
    """The variables of a process that meets the case, in a directory that has its flow."""
    source = FLOW.replace("@batch(ATTRIBUTES)", f"@batch({case.attributes})")
    (place / "broken.py").write_text(source)
    emulator, s3 = servers
    given = {**working(servers, place, cache), **case.variables}
    with ExitStack() as stack:
        if case.answer:
            faults = Faults(1.0, (case.answer,), path=case.path)
            given["AFLOW_BATCH_ENDPOINT_URL"] = stack.enter_context(
                proxied(emulator.endpoint_url, faults)
            )
        if case.s3_answer:
            faults = Faults(1.0, (case.s3_answer,))
            given["AFLOW_S3_ENDPOINT_URL"] = stack.enter_context(proxied(s3.endpoint_url, faults))
        yield {name: value for name, value in given.items() if value}


def attempt(case: Broken, servers: Servers, place: Path, cache: Path, *words: str) -> Said:
    with met(case, servers, place, cache) as variables:
        return aflow(words, place, variables)


def resumed(servers: Servers, place: Path, cache: Path) -> Said:
    """Go on from the run of a case when all is mended."""
    fine = Broken("fine", 0, "", "", "", "")
    return attempt(fine, servers, place, cache, "resume", "broken.py")


DOCTOR = ("doctor", "batch", "--queue")


def doctor_words(case: Broken) -> tuple[str, ...]:
    queue = case.variables.get("AFLOW_BATCH_QUEUE", QUEUE)
    return ("doctor", "batch", "--json", *(("--queue", queue) if queue else ()))


def findings(said: Said) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(said.out)["findings"]
    return found


def error_of(said: Said) -> str:
    """The error and hint of a run, in one line."""
    lines = said.err[said.err.index("error[") :].splitlines() if "error[" in said.err else []
    return " ".join(line.strip() for line in lines if "error[" in line or "hint:" in line)


# -- the table --------------------------------------------------------------------------------


def main() -> None:
    """Print the table: set-up, what doctor found, what the run said, exit codes, seconds."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        enter = stack.enter_context
        emulator = enter(shared_server("batch", folder, options=BATCH_OPTIONS))
        s3 = enter(shared_server("seaweedfs", folder))

        for server in (emulator, s3):
            asyncio.run(make_bucket(server))
        prepare(emulator, folder)
        say("| set-up | `aflow doctor batch` | exit | s | `aflow run` | exit | s | resumed |")
        say("|---|---|---|---|---|---|---|---|")
        for number, case in enumerate(CASES):
            place = folder / f"case-{number}"
            place.mkdir()
            say(_row(case, (emulator, s3), place, folder / "cache"))


def _row(case: Broken, servers: Servers, place: Path, cache: Path) -> str:
    began = time.monotonic()
    seen = attempt(case, servers, place, cache, *doctor_words(case))
    doctor_s, began = time.monotonic() - began, time.monotonic()
    ran = attempt(case, servers, place, cache, "run", "broken.py")
    run_s = time.monotonic() - began
    bad = [f for f in findings(seen) if f["level"] == "error" and (case.doctor in f["found"])]
    told = bad or [f for f in findings(seen) if case.doctor and case.doctor in f["found"]]
    found = "; ".join(f"{f['check']}: {f['found']} ({f['hint']})" for f in told[:1])
    again = ""
    if case.is_late:
        done = resumed(servers, place, cache)
        again = f"exit {done.code}, start ran {len((place / 'began').read_text())} time"
    cells = [
        *(case.name, _cell(found or "nothing: it is the step that asks"), str(seen.code)),
        *(f"{doctor_s:.1f}", _cell(error_of(ran)), str(ran.code), f"{run_s:.1f}"),
        again or "no run had begun",
    ]
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text[:260].replace("|", "\\|")


if __name__ == "__main__":
    main()
