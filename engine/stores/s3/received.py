"""Receives ranges of large blobs: the SDK signs a url for each, threads read what comes.

obstore hands each piece to Python in memory of its own, from which it is copied once more. Here the
kernel copies into memory that is used again, beside the interpreter's lock: a third of the CPU time
(docs/decisions/0008).
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import cast
from urllib.parse import SplitResult, urlsplit

from engine.aws.sessions import AwsSession, Wire
from engine.config import Config
from engine.stores.s3 import requests as ask
from engine.stores.s3.answers import RefusedError, without_bytes
from engine.stores.s3.lines import Line, connected
from engine.stores.s3.place import S3Place
from engine.stores.s3.refusals import refusals

_SIGNED_FOR_S = 3600  # more than any request may take
_KEEP_S = 10.0  # S3 closes idle connections soon after


class RangeReceiver:
    """`session` is the caller's to close; `others` sends all but reads that have a sink."""

    def __init__(
        self, place: S3Place, session: AwsSession, config: Config, others: ask.Sender
    ) -> None:
        self._place = place
        self._session = session
        self._payer = {"x-amz-request-payer": "requester"} if config.s3_requester_pays else {}
        self._others = others
        # Its own: a thread that waits for S3 is none that others could have.
        self._threads = ThreadPoolExecutor(config.s3_concurrency, "aflow-s3")
        self._wire: Wire | None = None
        self._idle: list[tuple[float, Line]] = []

    async def send(self, request: ask.Request[ask.R]) -> ask.R:
        """See `requests.Sender`.

        Raises:
            StoreError: what is documented with the request, or `aws.errors.error_of`.
        """
        if isinstance(request, ask.Get) and request.sink is not None:
            return cast("ask.R", await self._receive(request))
        return await self._others.send(request)

    async def aclose(self) -> None:
        for _, line in self._idle:
            line.close()
        self._idle.clear()
        self._threads.shutdown(wait=False)  # none is at work: who closes a store has read
        await self._others.aclose()

    async def _receive(self, request: ask.Get) -> ask.Fetched:
        doing = f"read {self._place.show(request.key)}"
        headers = {"Range": f"bytes={request.start}-{request.start + request.length - 1}"}
        if request.etag is not None:
            headers["If-Match"] = request.etag
        headers |= self._payer
        with refusals(doing):
            url = urlsplit(await self._signed(request, headers))
        line = await self._line(url, doing)
        try:
            reply = await self._in_thread(line, lambda: line.receive(url, headers, request, doing))
        except RefusedError as error:
            line.close()
            return without_bytes(request, error.answer, doing)
        except BaseException:
            line.close()
            raise
        if line.is_open:
            now_s = asyncio.get_running_loop().time()
            while self._idle and now_s - self._idle[0][0] >= _KEEP_S:
                self._idle.pop(0)[1].close()
            self._idle.append((now_s, line))
        else:
            line.close()
        return reply

    async def _signed(self, request: ask.Get, headers: dict[str, str]) -> str:
        client = await self._session.client("s3")
        options = {
            "Bucket": self._place.bucket,
            "Key": self._place.name(request.key),
            "Range": headers["Range"],
        }
        if request.etag is not None:
            options["IfMatch"] = request.etag
        if self._payer:
            options["RequestPayer"] = "requester"
        made = client.generate_presigned_url("get_object", options, ExpiresIn=_SIGNED_FOR_S)
        return cast("str", await made)

    async def _line(self, url: SplitResult, doing: str) -> Line:
        now_s = asyncio.get_running_loop().time()
        while self._idle:
            since_s, line = self._idle.pop()
            if now_s - since_s < _KEEP_S:
                return line
            line.close()
        if self._wire is None:
            self._wire = await self._session.wire("s3")
        return await connected(url, self._wire, doing)

    async def _in_thread(self, line: Line, receive: Callable[[], ask.Fetched]) -> ask.Fetched:
        """Who is cancelled ends the thread first: it writes to what is the caller's to close."""
        loop = asyncio.get_running_loop()
        working = loop.run_in_executor(self._threads, receive)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            line.stop()
            await asyncio.wait([working])
            working.exception()  # of what was ended: nobody's business
            raise
