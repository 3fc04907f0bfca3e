"""S3 without a server: senders that keep blobs in memory, count, take their time, fail by seed."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, cast

from engine.errors import (
    BlobChangedError,
    BlobNotFoundError,
    StoreThrottledError,
    StoreUnavailableError,
    UploadGoneError,
)
from engine.stores.base import BlobInfo, Upload
from engine.stores.s3 import requests as ask


class MemorySender:
    """S3 in memory. Each request takes `latency_s`, and its bytes the time that `bytes_s` gives.

    `sent` holds every request; `most_active` and `most_held_bytes` are the most there were of
    requests and of their bytes in memory at once; `uploads` those that are not finished.
    """

    def __init__(self, *, latency_s: float = 0.0, bytes_s: float = float("inf")) -> None:
        self.sent: list[ask.Request[Any]] = []  # Any: of every kind
        self.uploads: dict[str, tuple[str, str, dict[int, bytes]]] = {}
        self.most_active = 0
        self.most_held_bytes = 0
        self._blobs: dict[str, tuple[bytes, int, str]] = {}
        self._active: list[int] = []
        self._latency_s = latency_s
        self._bytes_s = bytes_s
        self._ids = 0

    async def send(self, request: ask.Request[ask.R]) -> ask.R:
        """See `requests.Sender`."""
        self.sent.append(request)
        held_bytes = request.held_bytes
        self._active.append(held_bytes)
        self.most_active = max(self.most_active, len(self._active))
        self.most_held_bytes = max(self.most_held_bytes, sum(self._active))
        try:
            await asyncio.sleep(self._latency_s + request.flight_bytes / self._bytes_s)
            reply = getattr(self, f"_{type(request).__name__.lower()}")(request)
            if isinstance(request, ask.Get) and request.sink is not None:
                request.sink(request.start, reply.body)
                reply = ask.Fetched(b"", reply.size_bytes, reply.etag)
            return cast("ask.R", reply)
        finally:
            self._active.remove(held_bytes)

    async def aclose(self) -> None:
        """Nothing is open."""

    def count(self, kind: type) -> int:
        return sum(isinstance(request, kind) for request in self.sent)

    def write(self, key: str, data: bytes, writer: str = "", *, if_absent: bool = False) -> bool:
        if if_absent and key in self._blobs:
            return False
        self._blobs[key] = (data, self._next_id(), writer)
        return True

    def _head(self, request: ask.Head) -> ask.Found | None:
        if request.key not in self._blobs:
            return None
        data, version, writer = self._blobs[request.key]
        return ask.Found(BlobInfo(request.key, len(data), version), writer)

    def _get(self, request: ask.Get) -> ask.Fetched:
        if request.key not in self._blobs:
            raise BlobNotFoundError(request.key)
        data, version, _ = self._blobs[request.key]
        if request.etag not in (None, str(version)):
            raise BlobChangedError(f"{request.key} was replaced")
        body = data[request.start : request.start + request.length]
        facts = (len(data), str(version)) if request.needs_facts else (-1, "")
        return ask.Fetched(body, *facts)

    def _put(self, request: ask.Put) -> bool:
        data = bytes(request.body)
        return self.write(request.key, data, request.writer, if_absent=request.if_absent)

    def _list(self, request: ask.List) -> ask.Page:
        keys = sorted(k for k in self._blobs if k.startswith(request.key))
        keys = [k for k in keys if request.after is None or k > request.after]
        page = keys[: ask.LIST_MAX]
        infos = [BlobInfo(k, len(self._blobs[k][0]), self._blobs[k][1]) for k in page]
        return ask.Page(infos, page[-1] if len(keys) > len(page) else None)

    def _delete(self, request: ask.Delete) -> None:
        for key in request.keys:
            self._blobs.pop(key, None)

    def _beginupload(self, request: ask.BeginUpload) -> str:
        upload_id = str(self._next_id())
        self.uploads[upload_id] = (request.key, request.writer, {})
        return upload_id

    def _putpart(self, request: ask.PutPart) -> str:
        if request.upload_id not in self.uploads:
            raise UploadGoneError
        self.uploads[request.upload_id][2][request.number] = bytes(request.body)
        return str(request.number)

    def _finishupload(self, request: ask.FinishUpload) -> bool:
        if request.upload_id not in self.uploads:
            raise UploadGoneError
        key, writer, parts = self.uploads[request.upload_id]
        data = b"".join(parts[int(number)] for number in request.parts)
        if not self.write(key, data, writer, if_absent=request.if_absent):
            return False
        del self.uploads[request.upload_id]
        return True

    def _abortupload(self, request: ask.AbortUpload) -> None:
        self.uploads.pop(request.upload_id, None)

    def _listuploads(self, request: ask.ListUploads) -> ask.UploadPage:
        found = [
            Upload(key, upload_id, int(upload_id))
            for upload_id, (key, _, _) in self.uploads.items()
            if key.startswith(request.key)
        ]
        return ask.UploadPage(found, None)

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids


class FaultySender:
    """Makes a share of the requests to `inner` fail, by seed; `sends` and `faults` count.

    Args:
        inner: what sends the others.
        share: tells which share of the requests, 0 to 1, fails now.
        seed: of the random choices.
        kinds: how they fail: "refused" is not done, "lost" is done and its reply lost, "throttled"
            is not done and asks for fewer, "silent" never ends.
    """

    def __init__(
        self,
        inner: ask.Sender,
        share: Callable[[], float],
        *,
        seed: int = 0,
        kinds: Sequence[str] = ("refused", "lost", "throttled"),
    ) -> None:
        self.sends = 0
        self.faults = 0
        self._inner = inner
        self._share = share
        self._kinds = kinds
        self._random = random.Random(seed)

    async def send(self, request: ask.Request[ask.R]) -> ask.R:
        """See `requests.Sender`."""
        self.sends += 1
        if self._random.random() >= self._share():
            return await self._inner.send(request)
        self.faults += 1
        kind = self._random.choice(self._kinds)
        if kind == "silent":
            await asyncio.Event().wait()
        if kind == "throttled":
            raise StoreThrottledError(f"cannot send {request.key}: SlowDown")
        if kind == "lost":
            await self._inner.send(request)
        raise StoreUnavailableError(f"cannot send {request.key}: the connection was reset")

    async def aclose(self) -> None:
        await self._inner.aclose()
