"""What Batch refuses, and how often it may be asked. Pure.

The figures stand here once more, apart from those that the engine checks its requests by: an
emulator that shared them would agree with every mistake.

Sources: AWS Batch API Reference, SubmitJob, RegisterJobDefinition, DescribeJobs and ListJobs; AWS
Batch User Guide, "Service quotas" (read 2026-11). AWS does not document the texts: these say the
same in other words, and what tells errors apart is the code.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

DESCRIBE_MAX = 100
LIST_MAX = 100
ARRAY_SIZES = (2, 10_000)
OVERRIDES_MAX_BYTES = 8_192
TIMEOUT_MIN_S = 60
ATTEMPTS = (1, 10)
DEPENDENCIES_MAX = 20
TAGS_MAX = 50
EVALUATE_MAX = 5
RATE_PER_S = 50.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}\Z")

Body = Mapping[str, Any]  # Any: JSON


class ApiError(Exception):
    """An answer that is an error: its code by the API Reference and its HTTP status."""

    def __init__(self, message: str, *, code: str = "ClientException", status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


class TokenBucket(Struct):
    """`rate` requests a second in the long run, a second's worth at once."""

    rate: float
    tokens: float = 0.0
    filled_at: float = float("-inf")

    def take(self, now: float) -> None:
        """Let one request through.

        Raises:
            ApiError: there were too many.
        """
        self.tokens = min(self.rate, self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.tokens < 1:
            raise throttled()
        self.tokens -= 1


def throttled() -> ApiError:
    return ApiError("Too Many Requests", code="TooManyRequestsException", status=429)


def check_submission(body: Body) -> None:
    """Check a SubmitJob by itself; whether what it names exists is not looked at.

    Raises:
        ApiError: Batch would not take it.
    """
    for field in ("jobName", "jobQueue", "jobDefinition"):
        if not body.get(field):
            raise ApiError(f"Error executing request, Exception : {field} is required")
    if not _NAME.match(body["jobName"]):
        raise ApiError(
            "Job name should match valid pattern: at most 128 letters, numbers, hyphens and "
            "underscores, the first a letter or a number"
        )
    if "arrayProperties" in body:
        _check_array(body["arrayProperties"])
    for field, label in (
        ("containerOverrides", "Container Overrides"),
        ("nodeOverrides", "Node Overrides"),
    ):
        size = len(json.dumps(body.get(field, {}), separators=(",", ":")).encode())
        if size > OVERRIDES_MAX_BYTES:
            raise ApiError(f"{label} length must be at most {OVERRIDES_MAX_BYTES}.")
    if len(body.get("dependsOn", ())) > DEPENDENCIES_MAX:
        raise ApiError(f"A job can depend on at most {DEPENDENCIES_MAX} jobs.")
    _check_environment(body.get("containerOverrides", {}))
    check_common(body)


def check_common(body: Body) -> None:
    """Check what SubmitJob and RegisterJobDefinition have in common.

    Raises:
        ApiError: Batch would not take it.
    """
    duration = (body.get("timeout") or {}).get("attemptDurationSeconds")
    if duration is not None and duration < TIMEOUT_MIN_S:
        raise ApiError(f"Timeout attemptDurationSeconds must be at least {TIMEOUT_MIN_S} seconds.")
    strategy = body.get("retryStrategy") or {}
    attempts = strategy.get("attempts", 1)
    if not ATTEMPTS[0] <= attempts <= ATTEMPTS[1]:
        raise ApiError(f"Retry attempts must be between {ATTEMPTS[0]} and {ATTEMPTS[1]}.")
    if len(strategy.get("evaluateOnExit", ())) > EVALUATE_MAX:
        raise ApiError(f"evaluateOnExit has at most {EVALUATE_MAX} conditions.")
    if len(body.get("tags") or {}) > TAGS_MAX:
        raise ApiError(f"A job has at most {TAGS_MAX} tags.")


def check_definition(body: Body) -> None:
    """Check a RegisterJobDefinition, beyond what moto checks.

    Raises:
        ApiError: Batch would not take it.
    """
    if not _NAME.match(body.get("jobDefinitionName", "")):
        raise ApiError("Job definition name should match valid pattern.")
    _check_environment(body.get("containerProperties") or {})
    check_common(body)


def check_ids(ids: object) -> list[str]:
    """The ids of a DescribeJobs.

    Raises:
        ApiError: there are too many, or none.
    """
    if not isinstance(ids, list) or not 1 <= len(ids) <= DESCRIBE_MAX:
        raise ApiError(f"Please provide 1 to {DESCRIBE_MAX} job ids.")
    return [str(each) for each in ids]


def _check_array(properties: Body) -> None:
    size = properties.get("size")
    if not isinstance(size, int) or not ARRAY_SIZES[0] <= size <= ARRAY_SIZES[1]:
        raise ApiError(f"Array size must be between {ARRAY_SIZES[0]} and {ARRAY_SIZES[1]}.")


def _check_environment(container: Body) -> None:
    for pair in container.get("environment", ()):
        if str(pair.get("name", "")).startswith("AWS_BATCH"):
            raise ApiError("Environment variables must not start with AWS_BATCH.")
