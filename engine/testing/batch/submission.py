"""A job definition and a SubmitJob, joined to what is to be done. Pure.

Source: AWS Batch API Reference, SubmitJob, ContainerOverrides, NodeOverrides; User Guide, "Job
definition parameters" (read 2026-11).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.testing.batch.jobs import Container, Work
from engine.testing.batch.limits import ApiError

LOG_GROUP = "/aws/batch/job"
_KEPT = ("parameters", "tags", "propagateTags", "platformCapabilities", "shareIdentifier")

Json = Mapping[str, Any]  # Any: JSON


def work_of(definition: Json, body: Json, *, queue_arn: str, no_op_s: float | None) -> Work:
    """Join a job definition, as DescribeJobDefinitions has it, and the body of a SubmitJob.

    Raises:
        ApiError: they do not go together.
    """
    parameters = {**(definition.get("parameters") or {}), **(body.get("parameters") or {})}
    name = definition["jobDefinitionName"]
    is_multinode = definition.get("type") == "multinode"
    if is_multinode and "arrayProperties" in body:
        raise ApiError("A multi-node parallel job cannot be an array job.")
    if is_multinode:
        containers, main_node = _nodes(definition, body)
    else:
        overrides = body.get("containerOverrides") or {}
        containers, main_node = [_joined(definition["containerProperties"], overrides)], 0
    retry = body.get("retryStrategy") or definition.get("retryStrategy") or {}
    timeout = body.get("timeout") or definition.get("timeout") or {}
    joined = {**definition, **body, "parameters": parameters}
    shown = {key: joined[key] for key in _KEPT if joined.get(key) not in (None, {}, [])}
    if retry:
        shown["retryStrategy"] = retry
    if timeout:
        shown["timeout"] = timeout
    return Work(
        definition_arn=definition["jobDefinitionArn"],
        definition_name=name,
        queue_arn=queue_arn,
        nodes=tuple(_container(each, parameters, name) for each in containers),
        main_node=main_node,
        is_multinode=is_multinode,
        attempts=retry.get("attempts", 1),
        evaluate=tuple(retry.get("evaluateOnExit") or ()),
        timeout_s=timeout.get("attemptDurationSeconds"),
        no_op_s=no_op_s,
        depends_on=tuple(body.get("dependsOn") or ()),
        shown=shown,
    )


def node_range(text: str, count: int) -> range:
    """The nodes that "0:3", "2:", ":1" or "4" means, of `count` nodes.

    Raises:
        ApiError: it means none, or nodes that there are not.
    """
    first, colon, last = text.partition(":")
    try:
        begin = int(first or 0)
        end = int(last) if last else (count - 1 if colon else begin)
    except ValueError:
        raise ApiError(f"Invalid targetNodes {text}.") from None
    if not 0 <= begin <= end < count:
        raise ApiError(f"targetNodes {text} does not fit {count} nodes.")
    return range(begin, end + 1)


def _nodes(definition: Json, body: Json) -> tuple[list[dict[str, Any]], int]:
    properties = definition.get("nodeProperties") or {}
    overrides = body.get("nodeOverrides") or {}
    stated = properties.get("numNodes", 0)
    count = overrides.get("numNodes", stated)
    found: dict[int, dict[str, Any]] = {}
    for each in properties.get("nodeRangeProperties", ()):
        text = each["targetNodes"]
        # Only an open range may follow numNodes of the overrides.
        for node in node_range(text, count if text.endswith(":") else max(count, stated)):
            found[node] = _joined(each.get("container") or {}, {})
    for each in overrides.get("nodePropertyOverrides", ()):
        for node in node_range(each["targetNodes"], count):
            found[node] = _joined(found.get(node, {}), each.get("containerOverrides") or {})
    if not count or not found.keys() >= set(range(count)):
        raise ApiError(f"nodeRangeProperties do not tell of all {count} nodes.")
    return [found[node] for node in range(count)], properties.get("mainNode", 0)


def _joined(properties: Json, overrides: Json) -> dict[str, Any]:
    joined = dict(properties)
    for key in ("command", "instanceType"):
        if overrides.get(key):
            joined[key] = overrides[key]
    for key, name in (("environment", "name"), ("resourceRequirements", "type")):
        pairs = [*(properties.get(key) or ()), *(overrides.get(key) or ())]
        joined[key] = list({pair[name]: pair for pair in pairs}.values())
    stated = {each["type"] for each in joined["resourceRequirements"]}
    for kind, old in (("VCPU", "vcpus"), ("MEMORY", "memory")):
        value = overrides.get(old, properties.get(old))
        if kind not in stated and value is not None:
            joined["resourceRequirements"].append({"type": kind, "value": str(value)})
    return joined


def _container(properties: Json, parameters: Mapping[str, str], name: str) -> Container:
    needs = {each["type"]: each["value"] for each in properties["resourceRequirements"]}
    options = (properties.get("logConfiguration") or {}).get("options") or {}
    pairs = properties.get("environment") or ()
    return Container(
        image=properties.get("image", ""),
        command=tuple(_substituted(properties.get("command") or (), parameters)),
        environment={pair["name"]: pair.get("value", "") for pair in pairs},
        vcpus=float(needs.get("VCPU", 1)),
        memory_mib=int(needs.get("MEMORY", 0)),
        log_group=options.get("awslogs-group", LOG_GROUP),
        log_prefix=options.get("awslogs-stream-prefix", name),
        properties=properties,
    )


def _substituted(command: Sequence[str], parameters: Mapping[str, str]) -> list[str]:
    return [
        parameters.get(word.removeprefix("Ref::"), word) if word.startswith("Ref::") else word
        for word in command
    ]
