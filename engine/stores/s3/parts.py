"""Sends the parts of large blobs: the SDK signs a url for each, aiohttp sends the bytes to it.

The SDK by itself would hash them twice over plain HTTP, once as a checksum and once as a signature,
and copy them on their way to the socket. Here they are hashed once: the checksum is among what is
signed, so S3 refuses a part whose bytes are not those that were signed for.
"""

import asyncio
import base64
import hashlib
from typing import TYPE_CHECKING, cast

from engine.aws.errors import error_of, parse_answer
from engine.aws.sessions import AwsSession
from engine.config import Config
from engine.errors import StoreUnavailableError
from engine.stores.base import Buffer
from engine.stores.s3 import requests as ask
from engine.stores.s3.answers import RefusedError
from engine.stores.s3.place import S3Place
from engine.stores.s3.refusals import refusals

if TYPE_CHECKING:
    import aiohttp

_SIGNED_FOR_S = 3600  # more than any request may take


class PartSender:
    """`session` is the caller's to close; `sdk` sends what is no part."""

    def __init__(
        self, place: S3Place, session: AwsSession, config: Config, sdk: ask.Sender
    ) -> None:
        self._place = place
        self._session = session
        self._payer = {"RequestPayer": "requester"} if config.s3_requester_pays else {}
        self._sdk = sdk

    async def send(self, request: ask.Request[ask.R]) -> ask.R:
        """See `requests.Sender`.

        Raises:
            StoreError: what is documented with the request, or `aws.errors.error_of`.
        """
        if isinstance(request, ask.PutPart):
            return cast("ask.R", await self._put(request))
        return await self._sdk.send(request)

    async def aclose(self) -> None:
        await self._sdk.aclose()

    async def _put(self, request: ask.PutPart) -> str:
        doing = f"write part {request.number} of {self._place.show(request.key)}"
        http = await self._session.http("s3")
        checksum = await asyncio.to_thread(_sha256, request.body)
        headers = {"x-amz-checksum-sha256": checksum}
        if self._payer:
            headers["x-amz-request-payer"] = self._payer["RequestPayer"]
        try:
            with refusals(doing):
                url = await self._signed(request, checksum)
                etag = await self._exchange(http, url, headers, request.body)
        except RefusedError as error:
            raise error_of(error.answer, doing=doing) from error.__cause__
        if not etag:
            raise StoreUnavailableError(f"cannot {doing}: the answer has no ETag")
        return f"{etag} {checksum}"

    async def _signed(self, request: ask.PutPart, checksum: str) -> str:
        client = await self._session.client("s3")
        options = {
            "Bucket": self._place.bucket,
            "Key": self._place.name(request.key),
            "UploadId": request.upload_id,
            "PartNumber": request.number,
            "ChecksumSHA256": checksum,
            **self._payer,
        }
        return cast(
            "str",
            await client.generate_presigned_url("upload_part", options, ExpiresIn=_SIGNED_FOR_S),
        )

    async def _exchange(
        self, http: "aiohttp.ClientSession", url: str, headers: dict[str, str], body: Buffer
    ) -> str:
        from yarl import URL  # noqa: PLC0415  # aiohttp has imported it already

        from engine.stores.s3.slices import Slices  # noqa: PLC0415  # it imports aiohttp

        async with http.put(
            URL(url, encoded=True),
            data=Slices(body),
            headers=headers,
            allow_redirects=False,
        ) as reply:
            text = await reply.text(errors="replace")
            if reply.status != 200:
                raise RefusedError(parse_answer(reply.status, text))
            return reply.headers.get("ETag", "")


def _sha256(body: Buffer) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()
