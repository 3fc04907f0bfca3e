"""Shapes of AWS Batch requests. Pure: builds requests and sends none; see batch.py.

What is equal for many jobs (image, roles, devices, the program that fetches aflow) is a job
definition, named by its content, so that it is registered once and never changed. What differs
(size, variables) is overridden by the job. Limits are checked here, before anything is sent.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct, field

from engine.errors import LimitExceededError
from engine.executors import batch_limits as limits

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_HASH_CHARS = 12
_MOVED = "-od"
_SPOT_RECLAIMED = "Host EC2*"

AUTO_PACK = 0
"""For `Needs.pack`: by how long jobs take."""

T = TypeVar("T")

Body = dict[str, Any]
"""What the SDK takes. Any: plain JSON values."""


class Needs(Struct, frozen=True):
    """Where a job runs, as what, and on how much.

    `memory_mib`, `shared_memory_mib`, `max_swap_mib`, `tmpfs_mib` are MiB, `ephemeral_gib` GiB;
    `cpu` may be a fraction. `platform` is EC2, SPOT, FARGATE or FARGATE_SPOT, as the queue's
    machines are. `reclaims` says how many times Batch starts a job again whose machine was taken
    away, which costs no retry of the user's; after that, the job goes on by `on_demand`, if it is
    there. Jobs of one `group` are run `pack` to a container, or as many as their durations suggest
    (AUTO_PACK).
    """

    queue: str
    image: str
    cpu: float = 1.0
    memory_mib: int = 4096
    gpu: int = 0
    platform: str = "EC2"
    job_role: str | None = None
    execution_role: str | None = None
    shared_memory_mib: int | None = None
    max_swap_mib: int | None = None
    swappiness: int | None = None
    tmpfs_mib: int | None = None
    tmpfs_path: str = "/aflow_temp"
    inferentia: int = 0
    efa: int = 0
    ephemeral_gib: int | None = None
    host_volumes: Sequence[str] = ()
    efs_volumes: Sequence[str] = ()
    log_driver: str | None = None
    log_options: Mapping[str, str] = field(default_factory=dict)
    privileged: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    reclaims: int = limits.ATTEMPTS_MAX - 1
    on_demand: "Needs | None" = None
    pack: int = 1
    group: str = ""

    @property
    def is_fargate(self) -> bool:
        return self.platform.startswith("FARGATE")


def safe_job_name(text: str, most: int = limits.NAME_MAX) -> str:
    """Make a name that Batch takes, of at most so many characters; equal texts get equal names,
    different ones different."""
    plain = _UNSAFE.sub("-", text)
    if plain == text and len(text) <= most:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARS]
    return f"{plain[: most - _HASH_CHARS - 1]}-{digest}"


def parcel_name(names: Sequence[str]) -> str:
    """Name the submission of some jobs: by its only one, or by the first, their number and all.

    So whoever submits the same jobs again, after a crash or a lost reply, finds them by name.
    """
    if len(names) == 1:
        return safe_job_name(names[0])
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:_HASH_CHARS]
    return safe_job_name(f"{names[0]}-x{len(names)}-{digest}")


def moved_name(name: str) -> str:
    """Name the submission of a job that goes on where machines are not taken away."""
    return f"{safe_job_name(name, limits.NAME_MAX - len(_MOVED))}{_MOVED}"


def is_moved(parcel: str) -> bool:
    """Whether a submission's name is one of `moved_name`."""
    return parcel.endswith(_MOVED)


def array_chunks(
    items: Sequence[T], size: int = limits.ARRAY_MAX, *, pack: int = 1
) -> list[Sequence[T]]:
    """Split what is ready together into as few submissions as Batch allows.

    Args:
        items: shape (n,).
        size: the most containers in one array job, 1 (no arrays) to 10,000.
        pack: how many items share a container.

    Returns:
        ceil(n / size / pack) chunks, none empty, in order; the last may hold a single job.

    Raises:
        ValueError: `size` is out of range.
    """
    if not 1 <= size <= limits.ARRAY_MAX:
        raise ValueError(f"size must be 1 to {limits.ARRAY_MAX}, not {size}")
    many = size * pack
    return [items[i : i + many] for i in range(0, len(items), many)]


def describe_pages(job_ids: Sequence[str]) -> list[Sequence[str]]:
    """Split job ids into as few DescribeJobs requests as Batch allows: 100 in each."""
    size = limits.DESCRIBE_MAX
    return [job_ids[i : i + size] for i in range(0, len(job_ids), size)]


# -- job definitions ------------------------------------------------------------------------------


def definition(needs: Needs, command: Sequence[str], *, nodes: int = 0) -> Body:
    """The body of RegisterJobDefinition; its name says its content.

    Args:
        needs: what the jobs need.
        command: starts a container.
        nodes: how many containers a multi-node job has; 0 for a job of one.

    Raises:
        LimitExceededError: Batch would refuse it.
    """
    container = {
        "image": needs.image,
        "command": list(command),
        "resourceRequirements": _sizes(needs, least=True),
        "linuxParameters": _linux(needs),
        "logConfiguration": _logs(needs),
        "jobRoleArn": needs.job_role,
        "executionRoleArn": needs.execution_role,
        "privileged": needs.privileged or None,
        **_volumes(needs),
    }
    if needs.is_fargate:
        container["networkConfiguration"] = {"assignPublicIp": "ENABLED"}
        if needs.ephemeral_gib is not None:
            container["ephemeralStorage"] = {"sizeInGiB": needs.ephemeral_gib}
    container = {k: v for k, v in container.items() if v}
    body: Body = {
        "type": "container",
        "containerProperties": container,
        "propagateTags": True,
        "platformCapabilities": ["FARGATE" if needs.is_fargate else "EC2"],
    }
    size = _json_size(container)
    if size > limits.DEFINITION_MAX_BYTES:
        raise LimitExceededError(
            f"a job definition of {size:,} bytes; Batch takes {limits.DEFINITION_MAX_BYTES:,}",
            hint="name fewer volumes and log options in @batch",
        )
    if nodes:
        body = {**body, "type": "multinode", "nodeProperties": _nodes(container, nodes)}
        del body["containerProperties"]
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return {"jobDefinitionName": f"aflow_{digest[:40]}", **body}


def _nodes(container: Body, nodes: int) -> Body:
    """All nodes are alike; the first is the main one, whose end is the job's.

    Source: API Reference, NodeProperties (read 2026-11-24).
    """
    return {
        "numNodes": nodes,
        "mainNode": 0,
        "nodeRangeProperties": [{"targetNodes": "0:", "container": container}],
    }


def _sizes(needs: Needs, *, least: bool = False) -> list[dict[str, str]]:
    cpu, memory = needs.cpu, needs.memory_mib
    if least:  # a definition must say something; the job overrides it
        cpu = min(limits.FARGATE_SIZES) if needs.is_fargate else 1
        memory = limits.FARGATE_SIZES[min(limits.FARGATE_SIZES)][0] if needs.is_fargate else 4096
    found = [
        {"type": "VCPU", "value": f"{cpu:g}"},
        {"type": "MEMORY", "value": str(memory)},
    ]
    if needs.gpu and not least:
        found.append({"type": "GPU", "value": str(needs.gpu)})
    return found


def _linux(needs: Needs) -> Body:
    devices = [
        _device(f"/dev/{kind}{index}")
        for kind, count in (("neuron", needs.inferentia), ("infiniband/uverbs", needs.efa))
        for index in range(count)
    ]
    tmpfs = {
        "containerPath": needs.tmpfs_path,
        "size": needs.tmpfs_mib or 0,
        "mountOptions": ["rw", "nosuid", "nodev"],
    }
    found: Body = {
        "sharedMemorySize": needs.shared_memory_mib,
        "maxSwap": needs.max_swap_mib,
        "swappiness": needs.swappiness,
        "devices": devices or None,
        "tmpfs": [tmpfs] if needs.tmpfs_mib else None,
    }
    return {k: v for k, v in found.items() if v is not None}


def _device(path: str) -> Body:
    return {"hostPath": path, "containerPath": path, "permissions": ["READ", "WRITE"]}


def _logs(needs: Needs) -> Body:
    if needs.log_driver is None and not needs.log_options:
        return {}
    return {"logDriver": needs.log_driver or "awslogs", "options": dict(needs.log_options)}


def _volumes(needs: Needs) -> Body:
    volumes: list[Body] = []
    mounts: list[Body] = []
    for number, path in enumerate(needs.host_volumes):
        host, _, inside = path.partition(":")
        volumes.append({"name": f"host_{number}", "host": {"sourcePath": host}})
        mounts.append({"sourceVolume": f"host_{number}", "containerPath": inside or host})
    for number, system in enumerate(needs.efs_volumes):
        name, _, inside = system.partition(":")
        efs = {"fileSystemId": name, "transitEncryption": "ENABLED"}
        volumes.append({"name": f"efs_{number}", "efsVolumeConfiguration": efs})
        mounts.append({"sourceVolume": f"efs_{number}", "containerPath": inside or f"/mnt/{name}"})
    return {"volumes": volumes, "mountPoints": mounts}


# -- jobs -----------------------------------------------------------------------------------------


class Submission(Struct, frozen=True):
    """Jobs that are submitted together: in one container, or an array of them, `pack` in each; or
    the nodes of a gang, with a container for each job.

    A name is "" where a job of an earlier process is none of ours any more.
    `timeout_s` is the longest that a container of them may live, if there is a limit.
    """

    parcel: str
    names: Sequence[str]
    needs: Needs
    timeout_s: float | None = None
    pack: int = 1
    is_gang: bool = False

    @property
    def size(self) -> int:
        """How many containers."""
        return -(-len(self.names) // self.pack)

    def id_of(self, job_id: str, container: int) -> str:
        """The id of one of its containers, when Batch has taken it as `job_id`.

        Source: API Reference, DescribeJobs: children of arrays, nodes of multi-node jobs.
        """
        if self.is_gang:
            return f"{job_id}#{container}"
        return job_id if self.size == 1 else f"{job_id}:{container}"


def submit_body(submission: Submission, definition_name: str, variables: Mapping[str, str]) -> Body:
    """The body of SubmitJob.

    Raises:
        LimitExceededError: the variables are more than Batch takes, or the array is.
    """
    needs = submission.needs
    merged = {**needs.variables, **variables}
    overrides = {
        "environment": [{"name": k, "value": v} for k, v in sorted(merged.items())],
        "resourceRequirements": _sizes(needs),
    }
    size = _json_size(overrides)
    if size > limits.OVERRIDES_MAX_BYTES:
        raise LimitExceededError(
            f"the variables of a job take {size:,} bytes; Batch takes "
            f"{limits.OVERRIDES_MAX_BYTES:,}",
            hint="keep large values in artifacts or files, not in variables",
        )
    if submission.size > limits.ARRAY_MAX:
        raise LimitExceededError(f"an array job of {submission.size:,}; 10,000 is the most")
    body: Body = {
        "jobName": submission.parcel,
        "jobQueue": needs.queue,
        "jobDefinition": definition_name,
        "propagateTags": True,
        # A gang that begins again is another attempt of it: that is not for Batch to say.
        "retryStrategy": retry_strategy(0 if submission.is_gang else needs.reclaims),
    }
    if submission.is_gang:
        every = {"targetNodes": "0:", "containerOverrides": overrides}
        body["nodeOverrides"] = {"numNodes": submission.size, "nodePropertyOverrides": [every]}
    else:
        body["containerOverrides"] = overrides
    if needs.tags:
        body["tags"] = dict(needs.tags)
    if submission.timeout_s is not None:
        seconds = max(limits.TIMEOUT_MIN_S, int(-(-submission.timeout_s // 1)))
        body["timeout"] = {"attemptDurationSeconds": seconds}
    if submission.size >= limits.ARRAY_MIN and not submission.is_gang:
        body["arrayProperties"] = {"size": submission.size}
    return body


def retry_strategy(reclaims: int) -> Body:
    """Batch starts a job again when its machine was taken away, and for nothing else.

    Source: User Guide, "Automated job retries": `onStatusReason` "Host EC2*" (read 2026-11-24).
    """
    return {
        "attempts": min(limits.ATTEMPTS_MAX, 1 + reclaims),
        "evaluateOnExit": [
            {"onStatusReason": _SPOT_RECLAIMED, "action": "RETRY"},
            {"onReason": "*", "action": "EXIT"},
        ],
    }


def fargate_size(cpu: float, memory_mib: int) -> tuple[float, int]:
    """The smallest size that Fargate has with at least so much of both.

    Raises:
        LimitExceededError: it has none.
    """
    for vcpus, sizes in sorted(limits.FARGATE_SIZES.items()):
        fitting = [size for size in sizes if size >= memory_mib]
        if vcpus >= cpu and fitting:
            return vcpus, min(fitting)
    raise LimitExceededError(
        f"Fargate has no size with {cpu:g} vCPUs and {memory_mib:,} MiB",
        hint="16 vCPUs and 120 GiB are the most; use a queue of EC2 machines",
    )


def _json_size(value: object) -> int:
    return len(json.dumps(value, separators=(",", ":")).encode())
