"""What instance types of EC2 have, as far as one may look."""

import asyncio
from collections.abc import Sequence
from typing import Any

from engine.aws.sessions import AwsSession
from engine.errors import EngineError

_PATIENCE_S = 10.0
_PATTERNS_MAX = 200
"""Values of one filter. Source: EC2 API Reference, DescribeInstanceTypes (read 2026-11-24)."""

Sizes = tuple[str, float, int, int]
"""Name, vCPUs, MiB of memory, GPUs."""


async def instance_sizes(session: AwsSession, patterns: Sequence[str]) -> list[Sizes] | None:
    """The instance types that fit one of `patterns`, such as "m5.large" or "m5.*".

    None where nobody knows: EC2 may not be asked, or does not answer. Whoever asks goes on without.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # see sessions.py

    found: list[Sizes] = []
    try:
        async with asyncio.timeout(_PATIENCE_S):
            ec2: Any = await session.client("ec2")  # Any: the SDK's
            pages = ec2.get_paginator("describe_instance_types").paginate(
                Filters=[{"Name": "instance-type", "Values": list(patterns)[:_PATTERNS_MAX]}]
            )
            async for page in pages:
                found += [_sizes(each) for each in page["InstanceTypes"]]
    except (BotoCoreError, ClientError, EngineError, TimeoutError):
        return None
    return found or None


def _sizes(wire: Any) -> Sizes:  # Any: JSON
    gpus = sum(int(gpu.get("Count", 1)) for gpu in (wire.get("GpuInfo") or {}).get("Gpus") or ())
    cpu, memory_mib = wire["VCpuInfo"]["DefaultVCpus"], wire["MemoryInfo"]["SizeInMiB"]
    return str(wire["InstanceType"]), float(cpu), int(memory_mib), gpus
