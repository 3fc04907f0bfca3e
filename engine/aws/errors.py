"""What AWS answers to a failed request, as our errors. Pure.

Sources: Amazon S3 API Reference, "Error responses"; AWS General Reference, "Common errors" (read
2026-11). A HEAD has no body, so its answer has a status and no code.
"""

from collections.abc import Mapping
from xml.etree import ElementTree

from msgspec import Struct

from engine.errors import (
    StoreDeniedError,
    StoreError,
    StoreSettingError,
    StoreThrottledError,
    StoreUnavailableError,
)


class Answer(Struct, frozen=True):
    """The facts of an error response. `code` is "" where there was no body to hold one."""

    status: int
    code: str = ""
    message: str = ""

    @property
    def says(self) -> str:
        words = (self.code or f"HTTP status {self.status}", self.message.rstrip("."))
        return ": ".join(word for word in words if word)


_LOG_IN = "the credentials have run out: log in again (`aws sso login`) or fetch new ones"
_DENIED: Mapping[str, str] = {
    "AccessDenied": "the credentials need s3:ListBucket on the bucket, and s3:GetObject, "
    "s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on its objects",
    "AllAccessDisabled": "the account or the bucket is closed",
    "InvalidAccessKeyId": "S3 at this endpoint does not know the access key: see "
    "`aflow config show --sources` for profile and endpoint",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key, or a proxy "
    "changes requests on their way",
    "ExpiredToken": _LOG_IN,
    "ExpiredTokenException": _LOG_IN,
    "TokenRefreshRequired": _LOG_IN,
    "InvalidToken": _LOG_IN,
    "RequestExpired": _LOG_IN,
    "RequestTimeTooSkewed": "this machine's clock is more than 15 minutes off: set it, for example "
    "with `timedatectl set-ntp true`",
}
_REGION = "set s3_region (AFLOW_S3_REGION) to the region of the bucket"
_SETTINGS: Mapping[str, str] = {
    "NoSuchBucket": "create the bucket, or mend the name in --datastore s3://BUCKET/...",
    "InvalidBucketName": "mend the name in --datastore s3://BUCKET/...",
    "PermanentRedirect": _REGION,
    "TemporaryRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "InvalidRegion": _REGION,
}
_THROTTLED = frozenset(
    [
        "SlowDown",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "RequestThrottled",
        "RequestThrottledException",
    ]
)
# Something happened to the request on its way, or S3 asks for it again.
_TRANSIENT = frozenset(
    [
        "RequestTimeout",
        "RequestTimeoutException",
        "IncompleteBody",
        "BadDigest",
        "InternalError",
        "XAmzContentSHA256Mismatch",
        "OperationAborted",
        "ConditionalRequestConflict",
    ]
)


def error_of(answer: Answer, *, doing: str) -> StoreError:
    """The error for a failed request; `doing` is "read s3://bucket/key" or the like."""
    what = f"cannot {doing}: {answer.says}"
    if answer.code in _THROTTLED or answer.status in (429, 503):
        return StoreThrottledError(what, hint="the store is busy: it was asked too much at once")
    if answer.code in _TRANSIENT or answer.status >= 500 or answer.status == 408:
        return StoreUnavailableError(what)
    if answer.code in _DENIED or answer.status in (401, 403):
        return StoreDeniedError(what, hint=_DENIED.get(answer.code, _DENIED["AccessDenied"]))
    if answer.code in _SETTINGS or 300 <= answer.status < 400:
        return StoreSettingError(what, hint=_SETTINGS.get(answer.code, _REGION))
    if not answer.code:
        return StoreSettingError(what, hint="is s3_endpoint_url (AFLOW_S3_ENDPOINT_URL) S3's?")
    return StoreError(what)


def parse_answer(status: int, body: str) -> Answer:
    """Read the XML that S3 sends with an error; what is no such XML gives no code."""
    start = body.find("<Error>")
    end = body.find("</Error>")
    if start < 0 or end < 0:
        return Answer(status)
    try:
        tree = ElementTree.fromstring(body[start : end + len("</Error>")])
    except ElementTree.ParseError:
        return Answer(status)
    return Answer(status, tree.findtext("Code") or "", tree.findtext("Message") or "")
