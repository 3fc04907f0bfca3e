"""What S3's answers to reads mean, whoever sent the request. Pure."""

from engine.aws.errors import Answer, error_of
from engine.errors import BlobChangedError, BlobNotFoundError, StoreUnavailableError
from engine.stores.s3.requests import Fetched, Get

WRITER = "aflow-writer"
"""The name of the metadata that holds the writer's token of a blob."""

TAKEN = 412
CONFLICT = 409
_BEHIND_THE_END = 416
ENDPOINT_HINT = "is s3_endpoint_url (AFLOW_S3_ENDPOINT_URL) right, and the network up?"


class RefusedError(Exception):
    """S3 answered with an error. For senders, who know what it means to what was asked."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.says)
        self.answer = answer


def without_bytes(request: Get, answer: Answer, doing: str) -> Fetched:
    """The reply where S3 refused a read because the range has no bytes; for the rest, its error.

    Raises:
        BlobNotFoundError, BlobChangedError: the status says so.
        StoreError: `aws.errors.error_of`.
    """
    if answer.status == _BEHIND_THE_END:
        return Fetched(b"", 0 if request.start == 0 else -1, "")
    if answer.status == 404 and answer.code in ("NoSuchKey", ""):
        raise BlobNotFoundError(request.key)
    if answer.status == TAKEN:
        raise BlobChangedError(f"cannot {doing}: it was replaced meanwhile")
    raise error_of(answer, doing=doing)


def check_range(request: Get, size_bytes: int, came: int, doing: str) -> None:
    """Return if `came` bytes are what a blob of `size_bytes` has of the range.

    Raises:
        StoreUnavailableError: they are more or fewer: the connection ended early, for one.
    """
    wanted = min(request.length, size_bytes - request.start)
    if came != wanted:
        raise StoreUnavailableError(f"cannot {doing}: {came:,} bytes came, of {wanted:,}")
