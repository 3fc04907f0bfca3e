"""Sends the requests that move small blobs with obstore, a client in Rust; others send the rest.

It takes a quarter of the SDK's CPU time for a small blob (docs/decisions/0008). It signs with the
credentials of the same session, sends one digest of each body, which S3 checks, and tries once. Its
errors are text that ends in the server's answer.
"""

import asyncio
import os
import re
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from engine.aws.errors import Answer, error_of, parse_answer
from engine.aws.sessions import CONNECT_S, AwsSession, Location
from engine.config import Config
from engine.errors import StoreError, StoreUnavailableError, StoreUnreachableError
from engine.stores.base import BlobInfo
from engine.stores.s3 import requests as ask
from engine.stores.s3.answers import (
    ENDPOINT_HINT,
    TAKEN,
    WRITER,
    RefusedError,
    check_range,
    without_bytes,
)
from engine.stores.s3.place import S3Place

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Credential

_STATUS = re.compile(r"status code: (\d{3})")
_HOST = re.compile(r"https?://[^/ ]+")
_KEEP_S = 540
"""How long credentials are kept. obstore asks again five minutes before, the SDK renews what has
ten minutes left."""


_used_in: list[int] = []  # the process whose threads obstore has, once it has any


def is_lost() -> bool:
    """Whether this process was forked by one that has used obstore: it would wait for ever."""
    return bool(_used_in) and _used_in[0] != os.getpid()


class RustSender:
    """`session` is the caller's to close; `others` sends what this does not."""

    def __init__(
        self, place: S3Place, session: AwsSession, config: Config, others: ask.Sender
    ) -> None:
        self._place = place
        self._session = session
        self._config = config
        self._others = others
        self._store: Any = None  # Any: obstore is imported late
        self._opening = asyncio.Lock()

    def send(self, request: ask.Request[ask.R]) -> Coroutine[Any, Any, ask.R]:
        """See `requests.Sender`.

        Raises:
            StoreError: what is documented with the request, or `aws.errors.error_of`.
        """
        sent: Any = None  # Any: a coroutine of the reply, whatever its type
        if isinstance(request, ask.Put):
            sent = self._put(request)
        elif isinstance(request, ask.Get) and request.sink is None:
            sent = self._get(request)
        elif isinstance(request, ask.Head):
            sent = self._head(request)
        return cast("Coroutine[Any, Any, ask.R]", sent or self._others.send(request))

    async def aclose(self) -> None:
        self._store = None
        await self._others.aclose()

    async def _get(self, request: ask.Get) -> ask.Fetched:
        doing = f"read {self._place.show(request.key)}"
        if self._store is None:
            await self._open()
        try:
            if request.needs_facts:
                return await self._get_with_facts(request, doing)
            return await self._get_bytes(request, doing)
        except RefusedError as error:
            return without_bytes(request, error.answer, doing)

    async def _get_bytes(self, request: ask.Get, doing: str) -> ask.Fetched:
        """The loop hears from Rust once, not twice: a third less of CPU time for a small blob."""
        name, start = self._place.name(request.key), request.start
        with _Errors(doing):
            reply = await self._store.get_range_async(name, start=start, length=request.length)
        body = memoryview(reply)
        if body.nbytes > request.length:
            problem = f"{body.nbytes:,} bytes came, of {request.length:,} at most"
            raise StoreUnavailableError(f"cannot {doing}: {problem}")
        return ask.Fetched(body, -1, "")

    async def _get_with_facts(self, request: ask.Get, doing: str) -> ask.Fetched:
        options: dict[str, object] = {"range": (request.start, request.start + request.length)}
        if request.etag is not None:
            options["if_match"] = request.etag
        with _Errors(doing):
            reply = await self._store.get_async(self._place.name(request.key), options=options)
            body = memoryview(await reply.bytes_async())
        meta = reply.meta  # made anew whenever it is asked for
        check_range(request, meta["size"], body.nbytes, doing)
        return ask.Fetched(body, meta["size"], meta["e_tag"] or "")

    async def _put(self, request: ask.Put) -> bool:
        doing = f"write {self._place.show(request.key)}"
        if self._store is None:
            await self._open()
        try:
            with _Errors(doing):
                await self._store.put_async(
                    self._place.name(request.key),
                    request.body,
                    attributes={WRITER: request.writer} if request.if_absent else None,
                    mode="create" if request.if_absent else "overwrite",
                    use_multipart=False,
                )
        except RefusedError as error:
            if request.if_absent and error.answer.status == TAKEN:
                return False
            raise error_of(error.answer, doing=doing) from error.__cause__
        return True

    async def _head(self, request: ask.Head) -> ask.Found | None:
        doing = f"look for {self._place.show(request.key)}"
        await self._open()
        try:
            with _Errors(doing):
                reply = await self._store.get_async(
                    self._place.name(request.key), options={"head": True}
                )
        except RefusedError as error:
            if error.answer.status == 404:
                return None
            raise error_of(error.answer, doing=doing) from error.__cause__
        modified_us = round(reply.meta["last_modified"].timestamp() * 1_000_000)
        info = BlobInfo(request.key, reply.meta["size"], modified_us)
        return ask.Found(info, reply.attributes.get(WRITER, ""))

    async def _open(self) -> None:
        """Make `_store`, which no frame keeps: an error's traceback would keep its sockets."""
        if self._store is None:
            async with self._opening:
                if self._store is None:
                    await self._session.credentials()  # so that their lack is told as what it is
                    location = await self._session.location("s3")
                    self._store = await asyncio.to_thread(self._made, location)

    def _made(self, location: Location) -> Any:  # Any: as above
        from obstore.store import S3Store  # noqa: PLC0415  # only where there is S3

        _used_in[:] = [os.getpid()]
        return S3Store(
            self._place.bucket,
            config=store_options(self._config, location, self._place.bucket),
            client_options=_client_options(self._config, location.ca_bundle),
            retry_config={"max_retries": 0},
            credential_provider=self._credential,
        )

    async def _credential(self) -> "S3Credential":
        now = await self._session.credentials()
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": _now() + timedelta(seconds=_KEEP_S),
        }


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  # obstore compares it with the clock itself


def store_options(config: Config, location: Location, bucket: str) -> "S3Config":
    """What obstore is told; explicit, so that its own reading of variables decides nothing."""
    scheme, _, host = location.endpoint_url.partition("://")
    # The SDK's own rule for "auto": AWS has buckets in host names, others mostly do not.
    by_host = config.s3_addressing == "virtual" or (
        config.s3_addressing == "auto" and location.is_aws and "." not in bucket
    )
    options: S3Config = {
        "region": location.region,
        "endpoint": f"{scheme}://{bucket}.{host}" if by_host else location.endpoint_url,
        "virtual_hosted_style_request": by_host,
        "request_payer": config.s3_requester_pays,
        "skip_signature": False,
        "conditional_put": "etag",
    }
    if location.is_aws and scheme == "https":
        # One digest of a body is enough: SHA-256, which is signed. Where TLS keeps others from
        # changing it, a checksum does, which costs a tenth of that; but not all servers know it.
        options["unsigned_payload"] = True
        options["checksum_algorithm"] = "CRC64NVME"
    if config.s3_encryption != "none":
        options["server_side_encryption"] = config.s3_encryption
    if config.s3_kms_key:
        options["sse_kms_key_id"] = config.s3_kms_key
    return options


def _client_options(config: Config, ca_bundle: str | None) -> "ClientConfig":
    options: ClientConfig = {
        "allow_http": True,
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "timeout": timedelta(hours=1),  # callers know how long each request may take
        "pool_idle_timeout": timedelta(seconds=20),  # S3 closes idle connections soon after
    }
    if ca_bundle:
        options["root_certificate"] = Path(ca_bundle).read_bytes()
    if config.s3_proxy:
        options["proxy_url"] = config.s3_proxy
    return options


class _Errors:
    """A block whose failure to `doing` becomes an error of ours; costs next to nothing without."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            from obstore.exceptions import BaseError  # noqa: PLC0415  # a store has imported it

            # What is ours already is of the session, through the provider.
            if isinstance(error, BaseError | OSError) and not isinstance(error, StoreError):
                raise _told(str(error), self._doing) from error


def _told(failure: str, doing: str) -> RefusedError | StoreError:
    text, _, inside = failure.partition("\n\nDebug source:")
    status = _STATUS.search(text)
    if status:
        return RefusedError(parse_answer(int(status[1]), text))
    if "redirect without LOCATION" in text:
        return RefusedError(Answer(301, "PermanentRedirect"))
    if "kind: Connect" in inside:
        where = _HOST.search(text)
        problem = f"cannot {doing}: nothing answers at {where[0] if where else 'its endpoint'}"
        return StoreUnreachableError(problem, hint=ENDPOINT_HINT)
    return StoreUnavailableError(f"cannot {doing}: {text.rpartition(' - ')[2]}")
