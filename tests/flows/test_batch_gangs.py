"""Gangs in AWS Batch, by the emulator: one multi-node job, the same results as on one machine."""

import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from engine.testing.servers import ServerAddress
from tests.flows.test_batch import Place, place, runtimes
from tests.flows.test_gangs import SOURCE

__all__ = ["place", "runtimes"]  # fixtures

BATCH = "@batch\n    @retry(times=1, minutes_between_retries=0)"
LATE = "if current.retry_count == 0: all_reduce(30); time.sleep(4); "


@pytest.fixture
def aws(batch_emulator: ServerAddress) -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in batch_emulator.variables.items():
            patch.setenv(variable, value)
        yield patch


@pytest.fixture
def queue(aws: pytest.MonkeyPatch) -> str:
    """A queue of machines on demand: the only ones that run multi-node jobs."""
    name = f"gangs-{uuid.uuid4().hex[:6]}"
    ec2, batch = boto3.client("ec2"), boto3.client("batch")
    [made] = batch.describe_compute_environments()["computeEnvironments"][:1]
    role = made["serviceRole"]
    profile = boto3.client("iam").create_instance_profile(InstanceProfileName=name)
    batch.create_compute_environment(
        computeEnvironmentName=name,
        type="MANAGED",
        state="ENABLED",
        serviceRole=role,
        computeResources={
            "type": "EC2",
            "minvCpus": 0,
            "maxvCpus": 16,
            "instanceTypes": ["m5.2xlarge"],
            "instanceRole": profile["InstanceProfile"]["Arn"],
            "subnets": [ec2.describe_subnets()["Subnets"][0]["SubnetId"]],
            "securityGroupIds": [ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]],
        },
    )
    order = [{"order": 1, "computeEnvironment": name}]
    batch.create_job_queue(
        jobQueueName=name, state="ENABLED", priority=1, computeEnvironmentOrder=order
    )
    ec2.close()
    batch.close()
    return name


def jobs_of(queue: str) -> list[dict[str, Any]]:  # Any: JSON
    client = boto3.client("batch")
    found = [
        job["jobId"]
        for state in ("SUBMITTED", "PENDING", "RUNNABLE", "RUNNING", "FAILED", "SUCCEEDED")
        for job in client.list_jobs(jobQueue=queue, jobStatus=state)["jobSummaryList"]
    ]
    jobs: list[dict[str, Any]] = client.describe_jobs(jobs=found)["jobs"]
    client.close()
    return sorted(jobs, key=lambda job: job["createdAt"])


def write(place: Place, decorators: str) -> None:
    source = SOURCE.replace("DECORATORS", decorators)
    source = source.replace("from engine import FlowSpec", "from engine import batch, FlowSpec")
    # The first node knows its own address, the others that of loopback, where all of it is.
    source = source.replace("socket.create_server(place)", 'socket.create_server(("", place[1]))')
    (place.folder / "shaped.py").write_text(source)


def test_a_gang_is_one_job_of_many_nodes_and_equals_a_local_one(place: Place, queue: str) -> None:
    write(place, BATCH)
    place.done("run", "shaped.py", "--size", "3", AFLOW_BATCH_QUEUE=queue)
    [job] = jobs_of(queue)
    assert job["nodeProperties"]["numNodes"] == 3
    local = {"AFLOW_DATASTORE": str(place.folder / "local")}
    write(place, "@retry(times=1)")
    place.done("run", "shaped.py", "--size", "3", **local)
    for step in ("start", "join", "end"):
        assert place.artifacts(step) == place.artifacts(step, **local), step
    assert place.artifacts("train")[2]["total"] == place.artifacts("train", **local)[2]["total"]
    assert "'LOCAL_RANK': '0'" in place.done("dump", "@latest/train/2/told").out


@pytest.mark.parametrize("fault", ["raise ValueError('boom')", "os._exit(9)"])
def test_what_a_broken_gang_has_committed_is_not_mixed_with_the_next_attempt(
    place: Place, queue: str, fault: str
) -> None:
    write(place, BATCH)
    said = place.done("run", "shaped.py", "--fault", LATE + fault, AFLOW_BATCH_QUEUE=queue)
    assert "attempts [1, 1, 1, 1]" in said.out
    assert [job["nodeProperties"]["numNodes"] for job in jobs_of(queue)] == [4, 4]


def test_a_node_that_dies_without_a_word_ends_its_gang(place: Place, queue: str) -> None:
    write(place, "@batch")
    fault = "os.kill(os.getpgid(os.getppid()), 9); time.sleep(300)"
    words = ("run", "shaped.py", "--size", "3", "--fault", fault)
    said = place.aflow(*words, AFLOW_BATCH_QUEUE=queue)
    assert said.code == 1, said
    assert "train/2" in said.err


def test_who_waits_for_a_node_that_is_over_its_time_is_not_the_cause(
    place: Place, queue: str
) -> None:
    write(place, "@batch\n    @timeout(seconds=1)\n    @catch(var='error')")
    words = ("run", "shaped.py", "--size", "3", "--fault", "time.sleep(300)")
    place.done(*words, AFLOW_BATCH_QUEUE=queue)
    errors = place.done("dump", "@latest/join/0/errors").out
    # The emulator's minutes are short: Batch may end the job at its own limit before that.
    assert errors.count("ran longer than") == 3, errors


def test_a_queue_that_runs_no_multi_node_jobs_is_refused_before_the_run(place: Place) -> None:
    write(place, "@batch")
    said = place.aflow("run", "shaped.py")
    assert said.code == 3, said
    assert "step 'train' has @parallel" in said.err
    assert "is of FARGATE" in said.err
