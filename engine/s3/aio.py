"""Objects in S3 for programs with a loop: the names of engine.s3.sync, awaited.

    async with S3(s3root="s3://bucket/data") as s3:
        for found in await s3.get_many(["a", "b"]):
            print(found.key, found.text)

What is fetched lies in files of a temporary directory, which is removed as the block is left. Many
objects are moved at once, with up to s3_concurrency requests and s3_memory_mib of memory. A client
belongs to one event loop.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

from engine import config as configuration
from engine.config import Config
from engine.errors import BlobNotFoundError
from engine.flow.current import current
from engine.flow.spec import FlowSpec
from engine.s3.errors import S3ContentError, S3ObjectNotFoundError
from engine.s3.joined import together
from engine.s3.objects import Content, Found, RangeInfo, S3GetObject, S3Object, S3PutObject
from engine.s3.roots import Location, parse_url, root_of
from engine.s3.transfers import Transfers

__all__ = ["S3", "RangeInfo", "S3GetObject", "S3Object", "S3PutObject"]

T = TypeVar("T")
R = TypeVar("R")
Key = str | S3GetObject


class Options(TypedDict, total=False):
    """Keywords of S3: `tmproot` is the directory to make the temporary one in, `encryption` how S3
    encrypts what is written ("AES256", "aws:kms"), `config` the settings to use."""

    tmproot: str
    encryption: str | None
    config: Config


class S3:
    """Objects of people's own. Without arguments, each key is a whole `s3://` url.

    Args:
        s3root: what keys are relative to: `s3://bucket/prefix`.
        run: `self` of a running step, or a run of the client: keys are relative to a place of that
            run's own, below `bucket` and `prefix`, or else below the setting s3_root.
        bucket: the bucket of the root.
        prefix: the root below the bucket.

    Raises:
        S3UrlError: the arguments exclude each other.
        ConfigError: there is no place for the objects of runs.
    """

    def __init__(
        self,
        s3root: str | None = None,
        run: Any = None,  # Any: a flow, or a run of either client
        bucket: str | None = None,
        prefix: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        self._config = options.get("config") or configuration.load()
        self._root = root_of(
            s3root=s3root,
            run=run,
            pathspec=_pathspec(run),
            bucket=bucket,
            prefix=prefix,
            default=_place_of_runs(self._config),
        )
        self._encryption = options.get("encryption")
        self._transfers = Transfers(self._config, options.get("tmproot"))

    @property
    def root(self) -> str | None:
        """What keys are relative to; None if they are whole urls."""
        return self._root.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connections and remove the files that were fetched."""
        await self._transfers.close()

    # -- reading --------------------------------------------------------------------------------

    async def get(
        self, key: Key | None = None, return_missing: bool = False, return_info: bool = True
    ) -> S3Object:
        """Fetch an object, or a part of it.

        Args:
            key: the key, or an S3GetObject; None for the root itself.
            return_missing: whether an object that is not there is returned, with `exists` False.
            return_info: whether to ask for its type and metadata, too: a request more.

        Raises:
            S3ObjectNotFoundError: there is no such object.
            S3RangeError: it has no such part.
            S3UrlError: the key does not fit the root.
            StoreError: S3 denies it, or does not answer.
        """
        part = key if isinstance(key, S3GetObject) else S3GetObject(key or "")
        at = self._root.locate(part.key or None)
        prefix = self._root.prefix_of(at)
        try:
            if (part.offset, part.length) == (0, -1):
                found = await self._transfers.fetch(at, prefix, with_info=return_info)
            else:
                found = await self._transfers.fetch_part(at, prefix, part)
        except BlobNotFoundError as error:
            if not return_missing:
                raise S3ObjectNotFoundError(at.url) from error
            found = Found(at.url, prefix)
        return S3Object(found)

    async def get_many(
        self, keys: Iterable[Key], return_missing: bool = False, return_info: bool = True
    ) -> list[S3Object]:
        """Fetch many at once; they come in the order of `keys`. See `get`."""
        return await self._each(keys, lambda key: self.get(key, return_missing, return_info))

    async def get_recursive(
        self, keys: Iterable[str | None], return_info: bool = False
    ) -> list[S3Object]:
        """Fetch all objects below directories. See `list_recursive` and `get`."""

        async def fetch(listed: S3Object) -> S3Object | None:
            at = parse_url(listed.url)
            try:
                found = await self._transfers.fetch(at, listed.prefix, with_info=return_info)
            except BlobNotFoundError:  # deleted since it was listed
                return None
            return S3Object(found)

        fetched = await self._each(await self.list_recursive(keys), fetch)
        return [found for found in fetched if found is not None]

    async def get_all(self, return_info: bool = False) -> list[S3Object]:
        """Fetch all objects below the root."""
        return await self.get_recursive([None], return_info)

    async def info(self, key: str | None = None, return_missing: bool = False) -> S3Object:
        """Ask what is known of an object, without its bytes.

        Raises:
            S3ObjectNotFoundError: there is no such object.
        """
        at = self._root.locate(key)
        facts = await self._transfers.describe(at)
        if facts is None and not return_missing:
            raise S3ObjectNotFoundError(at.url)
        size = facts.size_bytes if facts else None
        return S3Object(Found(at.url, self._root.prefix_of(at), None, size, facts))

    async def info_many(self, keys: Iterable[str], return_missing: bool = False) -> list[S3Object]:
        """Ask of many at once; they come in the order of `keys`."""
        return await self._each(keys, lambda key: self.info(key, return_missing))

    async def list_paths(self, keys: Iterable[str | None] | None = None) -> list[S3Object]:
        """List what lies directly in directories, of which the root is one.

        Args:
            keys: directories ("a" is "a/"); by default the root.

        Returns:
            Objects, and directories, whose `exists` is False and whose urls end with a slash. The
            keys are relative to the directory that was asked for.
        """
        pages = await self._each(self._folders(keys), self._transfers.list_folder)
        return [S3Object(found) for page in pages for found in page]

    async def list_recursive(self, keys: Iterable[str | None] | None = None) -> list[S3Object]:
        """List all objects below directories, at any depth; see `list_paths`."""
        pages = await self._each(self._folders(keys), self._transfers.list_below)
        return [S3Object(found) for page in pages for found in page]

    # -- writing --------------------------------------------------------------------------------

    async def put(
        self,
        key: str | S3PutObject,
        obj: Content | None = None,
        overwrite: bool = True,
        content_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,  # Any: JSON
    ) -> str:
        """Write an object and return its url.

        Args:
            key: the key, or an S3PutObject, whose own fields count then.
            obj: text (UTF-8), bytes, or an open binary file, from where it stands.
            overwrite: False leaves an object that is there alone, whoever wrote it meanwhile.
            content_type: its type for who reads it over HTTP.
            metadata: what to note beside it, as JSON has it; up to 2 KB.

        Raises:
            S3ContentError: `obj` is nothing that can be written.
            S3UrlError: the key does not fit the root.
            StoreError: S3 denies it, or does not answer.
        """
        if isinstance(key, S3PutObject):
            return await self._put(key, key.value if obj is None else obj, overwrite)
        item = S3PutObject(key, content_type=content_type, metadata=metadata)
        return await self._put(item, obj, overwrite)

    async def put_many(
        self, key_objs: Iterable[tuple[str, Content] | S3PutObject], overwrite: bool = True
    ) -> list[tuple[str, str]]:
        """Write many at once; returns (key, url) in their order. See `put`."""

        async def put(pair: tuple[str, Content] | S3PutObject) -> tuple[str, str]:
            item = pair if isinstance(pair, S3PutObject) else S3PutObject(*pair)
            return item.key, await self._put(item, item.value, overwrite)

        return await self._each(key_objs, put)

    async def put_files(
        self, key_paths: Iterable[tuple[str, str | Path] | S3PutObject], overwrite: bool = True
    ) -> list[tuple[str, str]]:
        """Write many local files at once; returns (key, url) in their order.

        Raises:
            S3ContentError: a file cannot be read. And as `put`.
        """

        async def put(pair: tuple[str, str | Path] | S3PutObject) -> tuple[str, str]:
            item = pair if isinstance(pair, S3PutObject) else S3PutObject(pair[0], path=pair[1])
            try:
                with open(item.path or "", "rb") as file:  # noqa: ASYNC230  # only opened here
                    return item.key, await self._put(item, file, overwrite)
            except OSError as error:
                problem = f"is the file {str(item.path)!r}, which cannot be read: {error.strerror}"
                raise S3ContentError(item.key, problem=problem) from error

        return await self._each(key_paths, put)

    async def _put(self, item: S3PutObject, content: Content | None, overwrite: bool) -> str:
        at = self._root.locate(item.key)
        if item.encryption is None and self._encryption is not None:
            item = item._replace(encryption=self._encryption)
        await self._transfers.put(at, item, content, overwrite=overwrite)
        return at.url

    def _folders(self, keys: Iterable[str | None] | None) -> list[Location]:
        return [self._root.locate(key).folder for key in ([None] if keys is None else keys)]

    async def _each(self, items: Iterable[T], work: Callable[[T], Awaitable[R]]) -> list[R]:
        """Work on all items, many at once; the first failure ends the others and is raised."""
        todo: Sequence[T] = list(items)
        done: dict[int, R] = {}
        left = iter(range(len(todo)))

        async def work_on() -> None:
            for index in left:
                done[index] = await work(todo[index])

        width = min(len(todo), self._config.s3_concurrency)
        await together([work_on() for _ in range(width)])
        return [done[index] for index in range(len(todo))]


def _pathspec(run: Any) -> str | None:  # Any: a flow, or a run of either client
    if run is None:
        return None
    if isinstance(run, FlowSpec):
        return f"{current.flow_name}/{current.run_id}"
    return str(run.pathspec)


def _place_of_runs(config: Config) -> str | None:
    if config.s3_root:
        return config.s3_root
    return f"{config.datastore}/data" if config.datastore.startswith("s3://") else None
