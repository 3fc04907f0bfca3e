"""The bodies of requests to AWS Batch."""

import pytest

from engine.errors import LimitExceededError
from engine.executors.batch_requests import (
    Needs,
    Submission,
    array_chunks,
    definition,
    describe_pages,
    fargate_size,
    is_moved,
    moved_name,
    parcel_name,
    safe_job_name,
    submit_body,
)

COMMAND = ["python3", "-c", "pass"]


def test_equal_needs_have_one_definition_and_sizes_are_no_part_of_it() -> None:
    small, large = Needs("q", "image", cpu=1, memory_mib=1), Needs("q", "image", cpu=9, gpu=2)
    other = Needs("q", "another")
    assert definition(small, COMMAND) == definition(large, COMMAND)
    names = {definition(n, COMMAND)["jobDefinitionName"] for n in (small, large, other)}
    assert len(names) == 2
    assert all(len(name) <= 128 for name in names)


def test_a_definition_on_ec2_says_all_that_a_step_may_ask_for() -> None:
    needs = Needs(
        "q",
        "image",
        job_role="role",
        execution_role="puller",
        shared_memory_mib=64,
        max_swap_mib=100,
        swappiness=60,
        tmpfs_mib=512,
        inferentia=1,
        efa=1,
        host_volumes=["/data", "/a:/b"],
        efs_volumes=["fs-1:/models"],
        log_driver="awslogs",
        log_options={"awslogs-group": "g"},
        privileged=True,
    )
    body = definition(needs, COMMAND)
    assert body["platformCapabilities"] == ["EC2"]
    container = body["containerProperties"]
    assert (container["jobRoleArn"], container["executionRoleArn"]) == ("role", "puller")
    linux = container["linuxParameters"]
    assert (linux["sharedMemorySize"], linux["maxSwap"], linux["swappiness"]) == (64, 100, 60)
    assert [t["size"] for t in linux["tmpfs"]] == [512]
    devices = [d["hostPath"] for d in linux["devices"]]
    assert devices == ["/dev/neuron0", "/dev/infiniband/uverbs0"]
    mounts = {m["sourceVolume"]: m["containerPath"] for m in container["mountPoints"]}
    assert mounts == {"host_0": "/data", "host_1": "/b", "efs_0": "/models"}
    assert container["logConfiguration"]["options"] == {"awslogs-group": "g"}
    assert container["privileged"] is True


def test_a_definition_on_fargate_has_a_network_and_a_disk() -> None:
    needs = Needs("q", "image", platform="FARGATE_SPOT", ephemeral_gib=30, execution_role="r")
    body = definition(needs, COMMAND)
    container = body["containerProperties"]
    assert body["platformCapabilities"] == ["FARGATE"]
    assert container["networkConfiguration"] == {"assignPublicIp": "ENABLED"}
    assert container["ephemeralStorage"] == {"sizeInGiB": 30}


def test_a_job_says_its_size_its_variables_and_its_time() -> None:
    needs = Needs("q", "image", cpu=2.5, memory_mib=999, gpu=1, tags={"a": "b"})
    body = submit_body(Submission("p", ["x"], needs, timeout_s=10.2), "d", {"B": "2", "A": "1"})
    sizes = {r["type"]: r["value"] for r in body["containerOverrides"]["resourceRequirements"]}
    assert sizes == {"VCPU": "2.5", "MEMORY": "999", "GPU": "1"}
    variables = body["containerOverrides"]["environment"]
    assert variables == [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    assert body["timeout"] == {"attemptDurationSeconds": 60}
    assert (body["jobQueue"], body["jobDefinition"], body["tags"]) == ("q", "d", {"a": "b"})
    assert "arrayProperties" not in body


def test_several_jobs_are_an_array() -> None:
    body = submit_body(Submission("p", ["x", "y"], Needs("q", "image")), "d", {})
    assert body["arrayProperties"] == {"size": 2}
    assert "timeout" not in body


def test_a_gang_is_one_job_of_as_many_nodes_the_first_of_which_is_the_main_one() -> None:
    needs = Needs("q", "image", memory_mib=512, variables={"A": "1"})
    made = definition(needs, COMMAND, nodes=3)
    [every] = made["nodeProperties"]["nodeRangeProperties"]
    assert (made["type"], made["nodeProperties"]["numNodes"]) == ("multinode", 3)
    assert (made["nodeProperties"]["mainNode"], every["targetNodes"]) == (0, "0:")
    assert every["container"]["command"] == COMMAND
    assert "containerProperties" not in made
    assert made["jobDefinitionName"] != definition(needs, COMMAND)["jobDefinitionName"]
    gang = Submission("p", ["a", "b", "c"], needs, is_gang=True)
    body = submit_body(gang, "d", {"B": "2"})
    [override] = body["nodeOverrides"]["nodePropertyOverrides"]
    assert body["nodeOverrides"]["numNodes"] == 3
    assert {v["name"] for v in override["containerOverrides"]["environment"]} == {"A", "B"}
    assert not {"containerOverrides", "arrayProperties"} & set(body)
    assert body["retryStrategy"]["attempts"] == 1
    assert [gang.id_of("job", index) for index in range(3)] == ["job#0", "job#1", "job#2"]


@pytest.mark.parametrize(
    ("cpu", "memory_mib", "expected"),
    [
        (0.1, 1, (0.25, 512)),
        (0.25, 2049, (0.5, 3072)),
        (1, 4096, (1.0, 4096)),
        (1, 30_000, (4.0, 30_720)),
        (16, 122_880, (16.0, 122_880)),
    ],
)
def test_fargate_gives_the_smallest_size_that_holds_both(
    cpu: float, memory_mib: int, expected: tuple[float, int]
) -> None:
    assert fargate_size(cpu, memory_mib) == expected


def test_what_fargate_has_not_is_refused() -> None:
    with pytest.raises(LimitExceededError, match="122,881 MiB"):
        fargate_size(1, 122_881)


def test_names_tell_submissions_apart_and_are_equal_for_equal_jobs() -> None:
    assert parcel_name(["r-s-0-0"]) == "r-s-0-0"
    assert parcel_name(["a", "b"]) == parcel_name(["a", "b"])
    assert len({parcel_name(["a", "b"]), parcel_name(["a", "c"]), parcel_name(["a"])}) == 3
    assert safe_job_name("a.b") != safe_job_name("a-b")


def test_pages_join_to_what_was_asked_and_none_is_empty() -> None:
    ids = [str(number) for number in range(201)]
    pages = describe_pages(ids)
    assert [i for page in pages for i in page] == ids
    assert [len(page) for page in pages] == [100, 100, 1]
    assert describe_pages([]) == []
    with pytest.raises(ValueError, match="size"):
        array_chunks(ids, 10_001)


@pytest.mark.parametrize("name", ["r-s-0-0", "r-größe-0-0", "r-" + "s" * 200])
def test_the_name_of_a_job_that_was_moved_says_so_and_is_one_that_batch_takes(name: str) -> None:
    assert is_moved(moved_name(name))
    assert not is_moved(parcel_name([name]))
    assert safe_job_name(moved_name(name)) == moved_name(name)
    assert moved_name(name) != moved_name(f"{name}0")
