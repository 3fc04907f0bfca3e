"""What is wrong with a request for an object. What S3 itself refuses is a StoreError."""

from engine.errors import NotFoundError, UsageError


class S3UrlError(UsageError):
    """A url or a key of S3 is not one that can be used here."""

    code = "s3-url"

    def __init__(self, url: str, *, problem: str, hint: str | None = None) -> None:
        super().__init__(f"{url!r} {problem}", hint=hint)
        self.url, self.problem = url, problem


class S3ObjectNotFoundError(NotFoundError):
    """There is no such object in S3."""

    code = "s3-not-found"

    def __init__(
        self, url: str, *, problem: str = "does not exist", hint: str | None = None
    ) -> None:
        super().__init__(
            f"{url} {problem}",
            hint=hint or "return_missing=True returns what is missing instead of raising",
        )
        self.url, self.problem = url, problem


class S3RangeError(UsageError):
    """A part of an object was asked for that the object does not have."""

    code = "s3-range"

    def __init__(self, url: str, *, offset: int, length: int, size_bytes: int) -> None:
        super().__init__(
            f"{url} has {size_bytes:,} bytes; there are none at offset {offset:,}, "
            f"length {length:,}",
        )
        self.url, self.offset, self.length, self.size_bytes = url, offset, length, size_bytes


class S3ContentError(UsageError):
    """What was given to be written to S3 is nothing that can be."""

    code = "s3-content"

    def __init__(self, key: str, *, problem: str) -> None:
        super().__init__(f"the value for {key!r} {problem}", hint="give text, bytes or a file")
        self.key, self.problem = key, problem
