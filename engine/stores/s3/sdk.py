"""Sends requests to S3 with aioboto3: all kinds of them. A request is tried once.

The SDK signs, adds a SHA-256 of each body, which S3 checks, and checks what S3 says of a body that
it reads.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, cast

from engine.aws.errors import Answer, error_of
from engine.aws.sessions import AwsSession
from engine.config import Config
from engine.errors import UploadConflictError, UploadGoneError
from engine.stores.base import BlobInfo, Buffer, Upload
from engine.stores.s3 import requests as ask
from engine.stores.s3.answers import (
    CONFLICT,
    TAKEN,
    WRITER,
    RefusedError,
    check_range,
    without_bytes,
)
from engine.stores.s3.place import S3Place
from engine.stores.s3.refusals import refusals
from engine.stores.threads import to_its_end

_Options = dict[str, Any]  # Any: what each operation of the SDK takes


class SdkSender:
    """`session` is the caller's to close."""

    def __init__(self, place: S3Place, session: AwsSession, config: Config) -> None:
        self._place = place
        self._session = session
        self._bucket: _Options = {"Bucket": place.bucket}
        if config.s3_requester_pays:
            self._bucket["RequestPayer"] = "requester"
        self._encryption = _encryption(config)
        self._senders: Mapping[type, Callable[[Any], Awaitable[object]]] = {  # Any: its key's type
            ask.Head: self._head,
            ask.Get: self._get,
            ask.Put: self._put,
            ask.List: self._list,
            ask.Delete: self._delete,
            ask.BeginUpload: self._begin_upload,
            ask.PutPart: self._put_part,
            ask.FinishUpload: self._finish_upload,
            ask.AbortUpload: self._abort_upload,
            ask.ListUploads: self._list_uploads,
        }

    async def send(self, request: ask.Request[ask.R]) -> ask.R:
        """See `requests.Sender`.

        Raises:
            StoreError: what is documented with the request, or `aws.errors.error_of`.
        """
        return cast("ask.R", await self._senders[type(request)](request))

    async def aclose(self) -> None:
        """The session is its owner's to close."""

    def _object(self, key: str) -> _Options:
        return {**self._bucket, "Key": self._place.name(key)}

    async def _call(self, doing: str, operation: str, options: _Options) -> _Options:
        client = await self._session.client("s3")
        with refusals(doing):
            reply: _Options = await getattr(client, operation)(**options)
        return reply

    def _doing(self, verb: str, request: ask.Request[Any]) -> str:  # Any: no matter which
        return f"{verb} {self._place.show(request.key)}"

    async def _head(self, request: ask.Head) -> ask.Found | None:
        found = await self._facts(request)
        if found is None:
            return None
        info = BlobInfo(request.key, found["ContentLength"], _microseconds(found["LastModified"]))
        # S3 gives names of metadata in lower case, others as they like.
        writers = [value for name, value in found["Metadata"].items() if name.lower() == WRITER]
        return ask.Found(info, *writers)

    async def _facts(self, request: ask.Request[Any]) -> _Options | None:  # Any: no matter which
        """What S3 says of the request's key; None if there is no such object."""
        doing = self._doing("look for", request)
        try:
            return await self._call(doing, "head_object", self._object(request.key))
        except RefusedError as error:
            if error.answer.status == 404:
                return None
            raise error_of(error.answer, doing=doing) from error.__cause__

    def _beside(self, request: ask.Put | ask.BeginUpload) -> _Options:
        """What is written beside the bytes."""
        is_anyones = isinstance(request, ask.Put) and not request.if_absent
        metadata = {} if is_anyones else {WRITER: request.writer}
        return {**self._encryption, "Metadata": metadata}

    async def _get(self, request: ask.Get) -> ask.Fetched:
        doing = self._doing("read", request)
        options = self._object(request.key)
        options["Range"] = f"bytes={request.start}-{request.start + request.length - 1}"
        if request.etag is not None:
            options["IfMatch"] = request.etag
        try:
            reply = await self._call(doing, "get_object", options)
        except RefusedError as error:
            return without_bytes(request, error.answer, doing)
        size = int(reply["ContentRange"].rpartition("/")[2])
        body = b""
        content = reply["Body"]
        async with content:
            if request.sink is None:
                with refusals(doing):
                    body = await content.read()
                came = len(body)
            else:
                came = await _pour(content, request, request.sink, doing)
        check_range(request, size, came, doing)
        return ask.Fetched(body, size, reply["ETag"])

    async def _put(self, request: ask.Put) -> bool:
        doing = self._doing("write", request)
        options = {
            **self._object(request.key),
            **self._beside(request),
            "Body": _bytes(request.body),
            "ChecksumAlgorithm": "SHA256",
        }
        if await self._unless_taken(doing, "put_object", options, request.if_absent):
            return True
        # aiohttp sends a PUT again by itself when a kept connection breaks: it may be our blob.
        found = await self._head(ask.Head(key=request.key))
        return found is not None and found.writer == request.writer

    async def _unless_taken(
        self, doing: str, operation: str, options: _Options, if_absent: bool
    ) -> bool:
        if if_absent:
            options["IfNoneMatch"] = "*"
        try:
            await self._call(doing, operation, options)
        except RefusedError as error:
            if error.answer.status == TAKEN:
                return False
            raise error_of(error.answer, doing=doing) from error.__cause__
        return True

    async def _list(self, request: ask.List) -> ask.Page:
        options = {**self._bucket, "Prefix": self._place.prefix + request.key}
        if request.after is not None:
            options["ContinuationToken"] = request.after
        page = await self._reply(self._doing("list", request), "list_objects_v2", options)
        infos = [
            BlobInfo(self._place.key(o["Key"]), o["Size"], _microseconds(o["LastModified"]))
            for o in page.get("Contents", ())
        ]
        return ask.Page(infos, page.get("NextContinuationToken"))

    async def _delete(self, request: ask.Delete) -> None:
        objects = [{"Key": self._place.name(key)} for key in request.keys]
        options = {**self._bucket, "Delete": {"Objects": objects, "Quiet": True}}
        shown = f"delete {len(objects)} blobs of {self._place.url}"
        reply = await self._reply(shown, "delete_objects", options)
        for error in reply.get("Errors", ()):
            doing = f"delete s3://{self._place.bucket}/{error['Key']}"
            raise error_of(Answer(200, error["Code"], error.get("Message", "")), doing=doing)

    async def _begin_upload(self, request: ask.BeginUpload) -> str:
        options = {
            **self._object(request.key),
            **self._beside(request),
            "ChecksumAlgorithm": "SHA256",
        }
        reply = await self._reply(
            self._doing("begin to write", request), "create_multipart_upload", options
        )
        return str(reply["UploadId"])

    async def _put_part(self, request: ask.PutPart) -> str:
        options = {
            **self._object(request.key),
            "UploadId": request.upload_id,
            "PartNumber": request.number,
            "Body": _bytes(request.body),
            "ChecksumAlgorithm": "SHA256",
        }
        reply = await self._reply(
            self._doing(f"write part {request.number} of", request), "upload_part", options
        )
        return f"{reply['ETag']} {reply.get('ChecksumSHA256', '')}"

    async def _finish_upload(self, request: ask.FinishUpload) -> bool:
        doing = self._doing("finish writing", request)
        parts: list[_Options] = []
        for number, part in enumerate(request.parts, 1):
            etag, _, checksum = part.partition(" ")
            parts.append({"PartNumber": number, "ETag": etag})
            if checksum:
                parts[-1]["ChecksumSHA256"] = checksum
        options = {
            **self._object(request.key),
            "UploadId": request.upload_id,
            "MultipartUpload": {"Parts": parts},
        }
        if request.if_absent:
            options["IfNoneMatch"] = "*"
        try:
            await self._call(doing, "complete_multipart_upload", options)
        except RefusedError as error:
            if error.answer.status == TAKEN:
                return False
            if error.answer.code == "NoSuchUpload":
                raise UploadGoneError(f"cannot {doing}: the upload is gone") from error
            if error.answer.status == CONFLICT:
                raise UploadConflictError(f"cannot {doing}: {error.answer.says}") from error
            raise error_of(error.answer, doing=doing) from error.__cause__
        return True

    async def _abort_upload(self, request: ask.AbortUpload) -> None:
        doing = self._doing("abort writing", request)
        options = {**self._object(request.key), "UploadId": request.upload_id}
        try:
            await self._call(doing, "abort_multipart_upload", options)
        except RefusedError as error:
            if error.answer.status != 404:
                raise error_of(error.answer, doing=doing) from error.__cause__

    async def _list_uploads(self, request: ask.ListUploads) -> ask.UploadPage:
        options = {**self._bucket, "Prefix": self._place.prefix + request.key}
        if request.after is not None:
            options["KeyMarker"], options["UploadIdMarker"] = request.after
        doing = self._doing("list unfinished uploads of", request)
        page = await self._reply(doing, "list_multipart_uploads", options)
        uploads = [
            Upload(self._place.key(u["Key"]), u["UploadId"], _microseconds(u["Initiated"]))
            for u in page.get("Uploads", ())
        ]
        more = page.get("IsTruncated")
        after = (page["NextKeyMarker"], page["NextUploadIdMarker"]) if more else None
        return ask.UploadPage(uploads, after)

    async def _reply(self, doing: str, operation: str, options: _Options) -> _Options:
        """The same as `_call`, where each refusal is an error."""
        try:
            return await self._call(doing, operation, options)
        except RefusedError as error:
            raise error_of(error.answer, doing=doing) from error.__cause__


async def _pour(content: Any, request: ask.Get, sink: ask.Sink, doing: str) -> int:
    """Let `sink` have the body of a reply, the SDK's, as it comes; return how many bytes came."""
    came = 0
    while True:
        piece = bytearray()
        with refusals(doing):
            while more := await content.read(ask.PIECE_BYTES - len(piece)):
                piece += more
                if len(piece) == ask.PIECE_BYTES:
                    break
        if not piece:
            return came
        await to_its_end(sink, request.start + came, piece)  # its errors are no failures of S3
        came += len(piece)


def _encryption(config: Config) -> _Options:
    if config.s3_encryption == "none":
        return {}
    options: _Options = {"ServerSideEncryption": config.s3_encryption}
    if config.s3_kms_key:
        options["SSEKMSKeyId"] = config.s3_kms_key
    return options


def _bytes(body: Buffer) -> bytes:
    """The SDK sends bytes from a file of its own; what else it takes, aiohttp warns of."""
    return body if isinstance(body, bytes) else bytes(body)


def _microseconds(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)
