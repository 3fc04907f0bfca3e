"""From the keys that people write to objects in S3, and back. Pure."""

import re
from typing import Any

from msgspec import Struct

from engine.errors import ConfigError
from engine.s3.errors import S3UrlError
from engine.stores.s3.place import S3Place

KEY_MAX_BYTES = 1024  # S3 User Guide, "Creating object key names" (read 2026-11)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class Bucket(S3Place, frozen=True):
    """A bucket whose objects may have any key that S3 takes."""

    def checked(self, key: str) -> str:
        """Return `key`.

        Raises:
            S3UrlError: it is empty, or longer than S3 allows.
        """
        if not key:
            raise S3UrlError(f"s3://{self.bucket}/", problem="names no object")
        if len(key.encode(errors="surrogatepass")) > KEY_MAX_BYTES:
            raise S3UrlError(key[:80], problem=f"is longer than {KEY_MAX_BYTES:,} bytes")
        return key


class Location(Struct, frozen=True):
    """An object, or with a key that ends with a slash (or is empty) what lies below it."""

    bucket: str
    key: str

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.key}" if self.key else f"s3://{self.bucket}"

    @property
    def folder(self) -> "Location":
        """The same as a directory: "a" is "a/", and the root stays itself."""
        key = self.key if not self.key or self.key.endswith("/") else f"{self.key}/"
        return Location(self.bucket, key)


def parse_url(url: str) -> Location:
    """Read `s3://bucket/key`; the key is taken as it is, with nothing decoded.

    Raises:
        S3UrlError: it is no such url.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not _BUCKET.fullmatch(bucket):
        raise S3UrlError(url, problem="is no url of the form s3://bucket/key")
    return Location(bucket, key)


class Root(Struct, frozen=True):
    """What keys are relative to; `url` is None if each must be a whole url."""

    url: str | None = None

    def locate(self, key: str | None) -> Location:
        """The object of a key; of None the root itself.

        Raises:
            S3UrlError: a url where there is a root, a relative key where there is none.
        """
        if key is not None and not isinstance(key, str):
            raise S3UrlError(f"{key!r:.60}", problem=f"is a {type(key).__name__}, not a key")
        if self.url is None:
            if not key or "://" not in key:
                raise S3UrlError(
                    key or "",
                    problem="is no url, and this S3 has no root",
                    hint="write s3://bucket/key, or give S3 an s3root= or run=",
                )
            return parse_url(key)
        if key and key.startswith("s3://"):
            raise S3UrlError(
                key,
                problem=f"is a whole url, and this S3 has the root {self.url}",
                hint="write a key relative to the root, or use S3() for whole urls",
            )
        return parse_url(f"{self.url}/{key}" if key else self.url)

    def prefix_of(self, location: Location) -> str | None:
        """What an object of this root shows as its prefix."""
        return None if self.url is None or location.url == self.url else self.url


def root_of(
    *,
    s3root: str | None = None,
    run: Any = None,  # Any: a flow in its step, or a run of any client
    pathspec: str | None = None,
    bucket: str | None = None,
    prefix: str | None = None,
    default: str | None = None,
) -> Root:
    """Find the root that the arguments of S3 mean.

    Args:
        s3root: the root itself.
        run: whether the root is that of a run.
        pathspec: of that run.
        bucket: with `prefix`, the place where there is no `s3root`.
        prefix: under it.
        default: the place of runs whose bucket is not given.

    Raises:
        S3UrlError: the arguments exclude each other, or make no url.
        ConfigError: there is no place for runs.
    """
    if s3root and (run is not None or bucket):
        other = "run=" if run is not None else "bucket="
        raise S3UrlError(s3root, problem=f"and {other} exclude each other as roots")
    if prefix and not bucket:
        raise S3UrlError(prefix, problem="is a prefix without a bucket=")
    if s3root:
        return _root(s3root)
    place = f"s3://{bucket}/{prefix or ''}" if bucket else default
    if run is None:
        return _root(place) if bucket and place else Root()
    if not place:
        raise ConfigError(
            "there is no place in S3 for the objects of runs",
            hint="set s3_root (AFLOW_S3_ROOT) to s3://BUCKET/PREFIX, or give S3 a bucket=",
        )
    return _root(f"{place.rstrip('/')}/{pathspec}")


def _root(url: str) -> Root:
    return Root(parse_url(url.rstrip("/")).url)
