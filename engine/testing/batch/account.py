"""What moto keeps of the account: job definitions, queues, compute environments, logs, events.

moto runs in this process, so its tables are read and not asked for over HTTP.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from moto.batch.models import BatchBackend, batch_backends
from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.events.models import events_backends
from moto.iam.models import iam_backends
from moto.logs.models import logs_backends

from engine.testing.batch.capacity import Environment
from engine.testing.batch.limits import ApiError
from engine.testing.batch.places import Places

ACCOUNT, REGION = "123456789012", "us-east-1"
NO_OP_TAG = "aflow:no-op-seconds"
_OPTIMAL = ("c4", "m4", "r4", "c5", "m5", "r5")
_UNBOUNDED = 10**9
_TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"Service": ["ecs-tasks.amazonaws.com", "batch.amazonaws.com"]},
            }
        ],
    }
)


class Account:
    """The tables of one account and region, and the logs that jobs write."""

    def __init__(self, region: str = REGION, places: Places | None = None) -> None:
        self.region = region
        self.places = places or Places()
        self._logs_lock = threading.Lock()  # moto: "to be thread safe this would need a lock"

    @property
    def _batch(self) -> BatchBackend:
        return batch_backends[ACCOUNT][self.region]

    def queue(self, name: str) -> Mapping[str, Any]:  # Any: JSON
        """The queue as DescribeJobQueues has it.

        Raises:
            ApiError: there is none.
        """
        found = self._batch.get_job_queue(name)
        if found is None:
            raise ApiError(f"Error executing request, Exception : JobQueue {name} not found")
        return found.describe()

    def definition(self, name: str) -> dict[str, Any]:  # Any: JSON
        """The active definition that an ARN, a name with revision or a name stands for.

        Raises:
            ApiError: there is none.
        """
        kept = list(self._batch._job_definitions.values())  # moto's look-up finds dead ones first
        found = [
            each
            for each in kept
            if name in (each.arn, each.name, f"{each.name}:{each.revision}")
            and each.status == "ACTIVE"
        ]
        if not found:
            raise ApiError(f"Error executing request, Exception : JobDefinition {name} not found")
        return self._described(max(found, key=lambda each: each.revision))

    def definitions(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:  # Any: JSON
        """What DescribeJobDefinitions answers; moto's own answer leaves out the nodes."""
        found = self._batch.describe_job_definitions(
            body.get("jobDefinitionName"), body.get("jobDefinitions"), body.get("status")
        )
        return [self._described(each) for each in found]

    def environments(self, queue_arn: str) -> Sequence[Environment]:
        """The compute environments of a queue, in their order."""
        queue = self._batch.get_job_queue(queue_arn)
        invalid = self.places.invalid
        return [_environment(each, invalid) for each in queue.environments] if queue else []

    def compute_environments(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:  # Any: JSON
        """What DescribeComputeEnvironments answers; by moto's own answer all are valid."""
        names = body.get("computeEnvironments")
        found = self._batch.describe_compute_environments(environments=names)
        for each in found:
            if why := self.places.invalid.get(each["computeEnvironmentName"]):
                each.update(status="INVALID", statusReason=why)
        return list(found)

    def make_queue(self, name: str, *, vcpus: int, no_op_s: float | None = None) -> None:
        """Make a queue with a compute environment and roles of its own, unless it is there."""
        if self._batch.get_job_queue(name) is not None:
            return
        iam = iam_backends[ACCOUNT]["global"]
        roles = {role.name: role for role in iam.list_roles()[0]}
        for role in (f"{name}-service", f"{name}-job"):
            if role not in roles:
                roles[role] = iam.create_role(role, _TRUST, "/", None, "", [], None)
        ec2 = ec2_backends[ACCOUNT][self.region]
        subnet = next(iter(ec2.describe_subnets()))
        group = next(iter(ec2.describe_security_groups()))
        environment = self._batch.create_compute_environment(
            name,
            "MANAGED",
            "ENABLED",
            {
                "type": "FARGATE",
                "maxvCpus": vcpus,
                "subnets": [subnet.id],
                "securityGroupIds": [group.id],
            },
            roles[f"{name}-service"].arn,
        )
        order = [{"order": "1", "computeEnvironment": environment.arn}]
        tags = {} if no_op_s is None else {NO_OP_TAG: str(no_op_s)}
        self._batch.create_job_queue(name, "1", "", "ENABLED", order, tags)

    def job_role(self, queue: str) -> str:
        return f"arn:aws:iam::{ACCOUNT}:role/{queue}-job"

    # -- what jobs say and do ---------------------------------------------------------------------

    def open_log(self, group: str, stream: str) -> None:
        logs = logs_backends[ACCOUNT][self.region]
        with self._logs_lock:
            if group not in logs.groups:
                logs.create_log_group(group, {})
            logs.create_log_stream(group, stream)

    def write_log(self, group: str, stream: str, lines: Sequence[str], at_ms: int) -> None:
        events = [{"timestamp": at_ms, "message": line} for line in lines]
        with self._logs_lock:
            logs_backends[ACCOUNT][self.region].put_log_events(group, stream, events)

    @property
    def listens(self) -> bool:
        """Whether there is a rule of EventBridge that could want changes of state."""
        bus = events_backends[ACCOUNT][self.region].event_buses.get("default")
        return bool(bus and bus.rules)

    def announce(self, detail: Mapping[str, Any]) -> None:  # Any: JSON
        """Give a change of state to EventBridge, whose rules pass it on."""
        events_backends[ACCOUNT][self.region].put_events(
            [
                {
                    "Source": "aws.batch",
                    "DetailType": "Batch Job State Change",
                    "Resources": [detail["jobArn"]],
                    "Detail": json.dumps(detail),
                }
            ]
        )

    @staticmethod
    def _described(definition: Any) -> dict[str, Any]:  # Any: moto's JobDefinition; JSON
        shown = dict(definition.describe())
        if definition.node_properties:
            shown["nodeProperties"] = definition.node_properties
        return {key: value for key, value in shown.items() if value is not None}


def _environment(environment: Any, invalid: Mapping[str, str]) -> Environment:  # Any: moto's own
    resources = environment.compute_resources or {}
    machines = [m for name in resources.get("instanceTypes", ()) for m in _machines(name)]
    return Environment(
        arn=environment.arn,
        is_enabled=environment.state != "DISABLED" and environment.name not in invalid,
        max_vcpus=float(resources.get("maxvCpus", _UNBOUNDED)),
        largest_mib=max((m["MemoryInfo"]["SizeInMiB"] for m in machines), default=_UNBOUNDED),
        largest_vcpus=max((m["VCpuInfo"]["DefaultVCpus"] for m in machines), default=_UNBOUNDED),
    )


def _machines(name: str) -> list[Any]:  # Any: moto's table of instance types
    if name in INSTANCE_TYPES:
        return [INSTANCE_TYPES[name]]
    families = _OPTIMAL if name == "optimal" else (name,)
    return [each for key, each in INSTANCE_TYPES.items() if key.partition(".")[0] in families]
