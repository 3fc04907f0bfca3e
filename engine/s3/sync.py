"""Objects in S3: `with S3(run=self) as s3: s3.put("model", data)`. Metaflow's names and meanings.

The work is that of engine.s3.aio, in a loop of its own in a thread; so this client can be used in a
step, a script, or a cell of a notebook, whose own loop is running.
"""

import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from engine.portal import Portal
from engine.s3 import aio
from engine.s3.aio import Key, Options
from engine.s3.objects import Content, S3Object, S3PutObject


class _Awaited(aio.S3):
    """The awaited client, as a portal closes what it has made."""

    async def aclose(self) -> None:
        await self.close()


def _portal_of(first: _Awaited, options: Options) -> Portal[_Awaited]:
    """A portal to `first`; after a fork, to one like it, for a client belongs to one loop."""
    unused = [first]
    return Portal(lambda: unused.pop() if unused else _Awaited(first.root, **options))


class S3:
    """Objects of people's own. The arguments are those of engine.s3.aio.S3."""

    def __init__(
        self,
        s3root: str | None = None,
        run: Any = None,  # Any: a flow, or a run of either client
        bucket: str | None = None,
        prefix: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        self._aio = _Awaited(s3root, run, bucket, prefix, **options)
        self._portal = _portal_of(self._aio, options)
        # What nobody closes is closed when it is garbage; at exit the portal sees to itself.
        weakref.finalize(self, self._portal.close).atexit = False

    @property
    def root(self) -> str | None:
        """What keys are relative to; None if they are whole urls."""
        return self._aio.root

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections and remove the files that were fetched."""
        try:
            self._portal.call(lambda s3: s3.close())
        finally:
            self._portal.close()

    def get(
        self, key: Key | None = None, return_missing: bool = False, return_info: bool = True
    ) -> S3Object:
        """Fetch an object, or a part of it. See engine.s3.aio.S3.get, as for all that follow."""
        return self._portal.call(lambda s3: s3.get(key, return_missing, return_info))

    def get_many(
        self, keys: Iterable[Key], return_missing: bool = False, return_info: bool = True
    ) -> list[S3Object]:
        """Fetch many at once; they come in the order of `keys`."""
        return self._portal.call(lambda s3: s3.get_many(keys, return_missing, return_info))

    def get_recursive(
        self, keys: Iterable[str | None], return_info: bool = False
    ) -> list[S3Object]:
        """Fetch all objects below directories."""
        return self._portal.call(lambda s3: s3.get_recursive(keys, return_info))

    def get_all(self, return_info: bool = False) -> list[S3Object]:
        """Fetch all objects below the root."""
        return self._portal.call(lambda s3: s3.get_all(return_info))

    def info(self, key: str | None = None, return_missing: bool = False) -> S3Object:
        """Ask what is known of an object, without its bytes."""
        return self._portal.call(lambda s3: s3.info(key, return_missing))

    def info_many(self, keys: Iterable[str], return_missing: bool = False) -> list[S3Object]:
        """Ask of many at once; they come in the order of `keys`."""
        return self._portal.call(lambda s3: s3.info_many(keys, return_missing))

    def list_paths(self, keys: Iterable[str | None] | None = None) -> list[S3Object]:
        """List what lies directly in directories, of which the root is one."""
        return self._portal.call(lambda s3: s3.list_paths(keys))

    def list_recursive(self, keys: Iterable[str | None] | None = None) -> list[S3Object]:
        """List all objects below directories, at any depth."""
        return self._portal.call(lambda s3: s3.list_recursive(keys))

    def put(
        self,
        key: str | S3PutObject,
        obj: Content | None = None,
        overwrite: bool = True,
        content_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,  # Any: JSON
    ) -> str:
        """Write an object and return its url."""
        return self._portal.call(lambda s3: s3.put(key, obj, overwrite, content_type, metadata))

    def put_many(
        self,
        key_objs: Iterable[tuple[str, Content] | S3PutObject],
        overwrite: bool = True,
    ) -> list[tuple[str, str]]:
        """Write many at once; returns (key, url) in their order."""
        return self._portal.call(lambda s3: s3.put_many(key_objs, overwrite))

    def put_files(
        self,
        key_paths: Iterable[tuple[str, str | Path] | S3PutObject],
        overwrite: bool = True,
    ) -> list[tuple[str, str]]:
        """Write many local files at once; returns (key, url) in their order."""
        return self._portal.call(lambda s3: s3.put_files(key_paths, overwrite))
