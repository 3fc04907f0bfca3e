"""Receives ranges of large blobs: the SDK signs a url for each, threads read what comes.

obstore hands each piece to Python in memory of its own, from which it is copied once more. Here the
kernel copies into memory that is used again, beside the interpreter's lock: a third of the CPU time
(docs/decisions/0008).
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import cast
from urllib.parse import SplitResult, urlsplit

from engine.aws.sessions import AwsSession, Wire
from engine.config import Config
from engine.errors import StoreError
from engine.stores.s3 import requests as ask
from engine.stores.s3.answers import RefusedError, without_bytes
from engine.stores.s3.lines import QUIET_S, Line, StaleError, connected
from engine.stores.s3.place import S3Place
from engine.stores.s3.refusals import refusals
from engine.stores.threads import ended

_SIGNED_FOR_S = 3600  # more than any request may take
_KEEP_S = 10.0  # S3 closes idle connections soon after


class RangeReceiver:
    """`session` is the caller's to close; `others` sends all but reads that have a sink.

    `quiet_s` is how long S3 may say nothing.
    """

    def __init__(
        self, place: S3Place, session: AwsSession, config: Config, others: ask.Sender
    ) -> None:
        self._place = place
        self._session = session
        self._payer = {"x-amz-request-payer": "requester"} if config.s3_requester_pays else {}
        self._others = others
        self.quiet_s = QUIET_S
        # Its own: a thread that waits for S3 is none that others could have.
        self._threads = ThreadPoolExecutor(config.s3_concurrency, "aflow-s3")
        self._wire: Wire | None = None
        self._idle: list[tuple[float, Line]] = []
        self._busy: set[Line] = set()
        self._is_closed = False

    async def send(self, request: ask.Request[ask.R]) -> ask.R:
        """See `requests.Sender`.

        Raises:
            StoreError: what is documented with the request, or `aws.errors.error_of`.
        """
        if isinstance(request, ask.Get) and request.sink is not None:
            return cast("ask.R", await self._receive(request))
        return await self._others.send(request)

    async def aclose(self) -> None:
        """Close what is open; what is being read fails."""
        self._is_closed = True
        for _, line in self._idle:
            line.close()
        self._idle.clear()
        for line in self._busy:
            line.stop()  # whose thread waits for it ends, and the process can
        self._threads.shutdown(wait=False)
        await self._others.aclose()

    async def _receive(self, request: ask.Get) -> ask.Fetched:
        doing = f"read {self._place.show(request.key)}"
        if self._is_closed:
            raise StoreError(f"cannot {doing}: its store is closed")
        headers = {"Range": f"bytes={request.start}-{request.start + request.length - 1}"}
        if request.etag is not None:
            headers["If-Match"] = request.etag
        headers |= self._payer
        with refusals(doing):
            url = urlsplit(await self._signed(request, headers))
        while True:
            line = await self._line(url, doing)
            try:
                return await self._on(line, partial(line.receive, url, headers, request, doing))
            except StaleError:
                continue  # on another that is idle, in the end on a new one, which is never stale
            except RefusedError as error:
                return without_bytes(request, error.answer, doing)

    async def _on(self, line: Line, receive: Callable[[], ask.Fetched]) -> ask.Fetched:
        """Receive on a line, and keep it for others if it is as good as before."""
        is_good = False
        self._busy.add(line)
        try:
            reply = await self._in_thread(line, receive)
            is_good = line.is_open and not self._is_closed
        finally:
            self._busy.discard(line)
            if not is_good:
                line.close()
        if is_good:
            self._keep(line)
        return reply

    def _keep(self, line: Line) -> None:
        now_s = asyncio.get_running_loop().time()
        while self._idle and now_s - self._idle[0][0] >= _KEEP_S:
            self._idle.pop(0)[1].close()
        self._idle.append((now_s, line))

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
        line = await connected(url, self._wire, doing, quiet_s=self.quiet_s)
        if self._is_closed:
            line.close()
            raise StoreError(f"cannot {doing}: its store is closed")
        return line

    async def _in_thread(self, line: Line, receive: Callable[[], ask.Fetched]) -> ask.Fetched:
        """Who is cancelled ends the thread first: it writes to what is the caller's to close."""
        loop = asyncio.get_running_loop()
        working = loop.run_in_executor(self._threads, receive)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            line.stop()
            await ended(working)
            working.exception()  # of what was ended: nobody's business
            raise
