"""What goes to S3 and what comes back. Values; reading one opens a local file at most."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from msgspec import Struct

from engine.s3.errors import S3ObjectNotFoundError

ATTRIBUTES = "metaflow-user-attributes"
"""The name of the S3 metadata that holds the user's, as one JSON map. Metaflow's clients read and
write it too."""

Content = str | bytes | bytearray | memoryview | IO[bytes]


class S3GetObject(NamedTuple):
    """A part of an object: `length` bytes from `offset`; -1 means up to its end.

    A negative offset counts from the end.
    """

    key: str
    offset: int = 0
    length: int = -1


class S3PutObject(NamedTuple):
    """An object to write: `value` for put_many, `path` of a local file for put_files."""

    key: str
    value: Content | None = None
    path: str | Path | None = None
    content_type: str | None = None
    encryption: str | None = None
    metadata: Mapping[str, Any] | None = None  # Any: JSON


class RangeInfo(NamedTuple):
    """Which part of an object was read. `request_length` is what came."""

    total_size: int
    request_offset: int
    request_length: int


class Facts(Struct, frozen=True):
    """What S3 says of an object beside its bytes."""

    size_bytes: int
    modified_us: int
    content_type: str | None = None
    encryption: str | None = None
    metadata: Mapping[str, Any] | None = None  # Any: JSON


class Traits(Struct, frozen=True):
    """What is written beside the bytes of an object."""

    content_type: str | None = None
    encryption: str | None = None
    metadata: Mapping[str, Any] | None = None  # Any: JSON


def user_metadata(stored: Mapping[str, str]) -> dict[str, Any] | None:
    """The user's metadata in that of an object."""
    # S3 gives names in lower case, others as they like.
    stored = {name.lower(): value for name, value in stored.items()}
    if ATTRIBUTES in stored:
        try:
            found = json.loads(stored[ATTRIBUTES])
        except ValueError:
            found = None
        return found if isinstance(found, dict) else None
    return {k: v for k, v in stored.items() if k != "aflow-writer"} or None


class Found(Struct, frozen=True):
    """What an S3Object was made of. `size_bytes` is that of the whole object, None if there is
    none; `path` is where its bytes are."""

    url: str
    prefix: str | None = None
    path: str | None = None
    size_bytes: int | None = None
    facts: Facts | None = None
    part: RangeInfo | None = None


class S3Object:
    """An object, as it was found; with `path` its bytes are in a local file.

    The file is gone once the S3 client that fetched it is closed.
    """

    def __init__(self, found: Found) -> None:
        self._found = found

    @property
    def exists(self) -> bool:
        """Whether there is such an object; a directory in a listing is none."""
        return self._found.size_bytes is not None

    @property
    def downloaded(self) -> bool:
        """Whether its bytes are here."""
        return self._found.path is not None

    @property
    def url(self) -> str:
        return self._found.url

    @property
    def prefix(self) -> str | None:
        """What was asked for: the root, or the directory that was listed."""
        return self._found.prefix

    @property
    def key(self) -> str:
        """The url from the prefix on; the whole url if there is none."""
        if self._found.prefix is None or self._found.url == self._found.prefix:
            return self._found.url
        return self._found.url.removeprefix(self._found.prefix.rstrip("/")).lstrip("/")

    @property
    def path(self) -> str | None:
        """The local file."""
        return self._found.path

    @property
    def blob(self) -> bytes | None:
        """Its bytes; None if they are not here."""
        if self._found.path is None:
            return None
        try:
            return Path(self._found.path).read_bytes()
        except FileNotFoundError:
            raise S3ObjectNotFoundError(
                self._found.url,
                problem="was fetched, but its file is gone",
                hint="read it before the S3 client is closed",
            ) from None

    @property
    def text(self) -> str | None:
        """Its bytes as UTF-8."""
        data = self.blob
        return None if data is None else data.decode("utf-8")

    @property
    def size(self) -> int | None:
        """Of the object in bytes; of the part, if a part was asked for."""
        return self._found.part.request_length if self._found.part else self._found.size_bytes

    @property
    def has_info(self) -> bool:
        """Whether the four below are known."""
        return self._found.facts is not None

    @property
    def content_type(self) -> str | None:
        return self._found.facts.content_type if self._found.facts else None

    @property
    def encryption(self) -> str | None:
        return self._found.facts.encryption if self._found.facts else None

    @property
    def metadata(self) -> dict[str, Any] | None:  # Any: JSON
        """What the writer of the object noted beside it."""
        found = self._found.facts.metadata if self._found.facts else None
        return None if found is None else dict(found)

    @property
    def last_modified(self) -> int | None:
        """Seconds since 1970."""
        return self._found.facts.modified_us // 1_000_000 if self._found.facts else None

    @property
    def range_info(self) -> RangeInfo | None:
        return self._found.part

    def __repr__(self) -> str:
        if not self.exists:
            what = "a directory" if self.url.endswith("/") else "missing"
            return f"S3Object({self.url!r}, {what})"
        return f"S3Object({self.url!r}, {self.size:,} bytes)"
