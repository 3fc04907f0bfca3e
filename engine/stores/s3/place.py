"""Where an S3 datastore is: `s3://bucket/prefix`. Pure."""

import re
from typing import Self

from msgspec import Struct

from engine.errors import ConfigError
from engine.ids import safe_name
from engine.stores.keys import checked_key

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""S3 User Guide, "Bucket naming rules" (read 2026-11)."""


class S3Place(Struct, frozen=True):
    """`prefix` is "" or ends with a slash."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `s3://bucket` or `s3://bucket/prefix`.

        Raises:
            ConfigError: it is no such url.
        """
        scheme, _, rest = url.partition("://")
        bucket, _, prefix = rest.partition("/")
        if scheme != "s3" or not _BUCKET.fullmatch(bucket):
            raise ConfigError(
                f"{url!r} is no place in S3",
                hint="write s3://BUCKET/PREFIX; a bucket's name has 3 to 63 lower-case letters, "
                "digits, dots and hyphens",
            )
        prefix = prefix.strip("/")
        for part in prefix.split("/") if prefix else ():
            safe_name(part, what="part of an s3:// url")
        return cls(bucket, f"{prefix}/" if prefix else "")

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def checked(self, key: str) -> str:
        """Return `key` if it can be a blob's.

        Raises:
            UnsafeNameError: it cannot.
        """
        return checked_key(key)

    def name(self, key: str) -> str:
        """The object's key in the bucket; `key` has been checked, once, where it came in."""
        return self.prefix + key

    def key(self, name: str) -> str:
        return name.removeprefix(self.prefix)

    def show(self, key: str) -> str:
        """The blob's url, for people."""
        return f"s3://{self.bucket}/{self.prefix}{key}"
