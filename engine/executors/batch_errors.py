"""What AWS Batch answers to a failed request, as our errors. Pure.

Source: AWS Batch API Reference, "Common errors", and the errors of each action (read 2026-11-24).
"""

from typing import ClassVar

from engine.errors import (
    EXIT_AUTH,
    EXIT_CONFIG,
    ExecutorError,
    JobRejectedError,
    LimitExceededError,
)


class BatchDeniedError(ExecutorError):
    """AWS Batch does not let these credentials in."""

    code: ClassVar[str] = "batch-denied"
    exit_code: ClassVar[int] = EXIT_AUTH


class BatchSettingError(ExecutorError):
    """The settings lead to no queue: a wrong name, region or endpoint."""

    code: ClassVar[str] = "batch-setting"
    exit_code: ClassVar[int] = EXIT_CONFIG


class JobUnplaceableError(LimitExceededError):
    """No machine of the queue can ever take the job."""

    code: ClassVar[str] = "job-unplaceable"


class BatchUnavailableError(ExecutorError):
    """AWS Batch did not answer, or answered that it cannot."""

    code: ClassVar[str] = "batch-unavailable"
    retryable: ClassVar[bool] = True


class BatchThrottledError(BatchUnavailableError):
    """AWS Batch asks for fewer requests."""

    code: ClassVar[str] = "batch-throttled"


class SubmitUnclearError(BatchUnavailableError):
    """A SubmitJob may have been accepted: its answer is lost."""

    code: ClassVar[str] = "batch-submit-unclear"


_THROTTLED = frozenset(
    (
        "TooManyRequestsException",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        "RequestThrottled",
    )
)
STATEMENT_HINT = "`aflow doctor batch` prints the IAM statement that is missing"
_CLOCK = "this machine's clock is off: set it, for example with `timedatectl set-ntp true`"
_SKEWED = ("Signature expired", "Signature not yet current")
_DENIED = {
    "AccessDeniedException": STATEMENT_HINT,
    "AccessDenied": STATEMENT_HINT,
    "UnrecognizedClientException": "the access key is not known here: which profile is it of?",
    "InvalidClientTokenId": "the access key is not known here: which profile is it of?",
    "InvalidSignatureException": "the secret key is wrong",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredTokenException": "the credentials have run out: log in again (`aws sso login`)",
    "ExpiredToken": "the credentials have run out: log in again (`aws sso login`)",
    "RequestExpired": _CLOCK,
    "RequestTimeTooSkewed": _CLOCK,
}


def error_of(status: int, code: str, message: str, *, doing: str) -> ExecutorError:
    """The error for a request that Batch refused; `doing` is "submit job X" or the like."""
    code_told = code or f"HTTP status {status}"
    told = f"{code_told}: {message}".rstrip(". ") if message else code_told
    what = f"cannot {doing}: {told}"
    if code in _THROTTLED or status == 429:
        return BatchThrottledError(what, hint="others use the same account; it passes")
    if code in _DENIED or status in (401, 403):
        is_skewed = any(words in message for words in _SKEWED)
        hint = _CLOCK if is_skewed else _DENIED.get(code, _DENIED["AccessDenied"])
        return BatchDeniedError(what, hint=hint)
    if status >= 500 or code in ("ServerException", "InternalFailure", "ServiceUnavailable"):
        return BatchUnavailableError(what)
    if status == 404 and not code:
        hint = "is batch_endpoint_url (AFLOW_BATCH_ENDPOINT_URL) that of AWS Batch?"
        return BatchSettingError(what, hint=hint)
    return JobRejectedError(what, hint="`aflow doctor batch` looks at the queue and the roles")
