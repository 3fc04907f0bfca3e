"""The log of a container as CloudWatch has it: for one that died before it could say anything.

Not for more: FilterLogEvents and GetLogEvents allow a few calls a second for a whole account.
"""

import asyncio
from collections.abc import Sequence

from engine.aws.sessions import AwsSession
from engine.errors import EngineError

LOG_GROUP = "/aws/batch/job"
"""Where Batch's log driver writes unless told otherwise. Source: AWS Batch User Guide, "Using the
awslogs log driver" (read 2026-11-24)."""

LINES = 50
_PATIENCE_S = 5.0


async def container_log(session: AwsSession, stream: str) -> Sequence[tuple[int, str]]:
    """The last lines of a container, as (microseconds since 1970, text); none if that fails.

    A job's end must be told whether or not CloudWatch answers, so no error is raised.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # there already

    try:
        async with asyncio.timeout(_PATIENCE_S):
            client = await session.client("logs")
            reply = await client.get_log_events(
                logGroupName=LOG_GROUP, logStreamName=stream, limit=LINES, startFromHead=False
            )
    except (BotoCoreError, ClientError, EngineError, TimeoutError):
        return ()
    return [(event["timestamp"] * 1000, event["message"]) for event in reply["events"]]
