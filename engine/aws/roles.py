"""What IAM says of a role, as far as one may look."""

import json
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from engine.aws.sessions import AwsSession


class Role(Struct, frozen=True):
    """`trust` is its trust policy, as JSON. Instead, `problem` is IAM's code of why it is not
    known: "NoSuchEntity" if there is none."""

    trust: str = ""
    problem: str = ""


async def look_at_role(session: AwsSession, arn: str) -> Role:
    """Look a role up by its ARN, or its name."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # see sessions.py

    try:
        iam: Any = await session.client("iam")  # Any: the SDK's
        found = await iam.get_role(RoleName=arn.rpartition("/")[2])
    except ClientError as error:
        return Role(problem=str(error.response.get("Error", {}).get("Code", "")))
    except BotoCoreError as error:
        return Role(problem=type(error).__name__)
    trust = found["Role"].get("AssumeRolePolicyDocument")
    return Role(unquote(trust) if isinstance(trust, str) else json.dumps(trust))
