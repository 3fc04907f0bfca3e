"""What people's objects need beyond blobs: traits, any key, facts, directories.

Requests of engine.stores.s3, and four more of that kind, so that limits, back-off and deadlines are
the same ones. What has traits goes by the SDK; so does a key that obstore would write differently.
"""

import json
import re
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import asdict

from engine.aws.sessions import AwsSession
from engine.config import Config
from engine.s3.objects import ATTRIBUTES, Facts, Traits, user_metadata
from engine.s3.roots import Bucket
from engine.stores.base import BlobInfo
from engine.stores.s3 import requests as ask
from engine.stores.s3.sdk import SdkSender
from engine.stores.s3.store import bulk_sender

_PLAIN = re.compile(r"[A-Za-z0-9_=.-]+(/[A-Za-z0-9_=.-]+)*")
_DOTS = re.compile(r"(^|/)\.{1,2}(/|$)")


class Describe(ask.Request[Facts | None], frozen=True, kw_only=True):
    """What S3 says of an object; None if there is none."""


class FolderPage(Struct, frozen=True):
    """Some objects and directories of a directory; `after` asks for more."""

    infos: list[BlobInfo]
    folders: list[str]
    after: str | None


class ListFolder(ask.Request[FolderPage], frozen=True, kw_only=True):
    """The next page of what lies directly under `key`, which ends with a slash or is empty."""

    after: str | None = None


class PutWith(ask.Put, frozen=True, kw_only=True):
    """A Put with traits."""

    traits: Traits


class BeginUploadWith(ask.BeginUpload, frozen=True, kw_only=True):
    """A BeginUpload with traits."""

    traits: Traits


class ObjectSender:
    """Sends each request by the client that fits. `session` is the caller's to close."""

    def __init__(self, place: Bucket, session: AwsSession, config: Config) -> None:
        self._sdk = _ObjectSdk(place, session, config)
        self._bulk = bulk_sender(place, session, config, self._sdk)

    async def send(self, request: ask.Request[ask.R]) -> ask.R:
        """See `requests.Sender`."""
        if isinstance(request, PutWith) or not is_plain(request.key):
            return await self._sdk.send(request)
        return await self._bulk.send(request)

    async def aclose(self) -> None:
        await self._bulk.aclose()


def is_plain(key: str) -> bool:
    """Whether every client spells a key as it is, and none takes a part of it for a path's."""
    return _PLAIN.fullmatch(key) is not None and not _DOTS.search(key)


class WithTraits:
    """A sender that adds traits to what is written."""

    def __init__(self, inner: ask.Sender, traits: Traits) -> None:
        self._inner = inner
        self._traits = traits

    async def send(self, request: ask.Request[ask.R]) -> ask.R:
        with_traits: ask.Request[Any] = request  # Any: of the same reply
        if type(request) is ask.Put:
            with_traits = PutWith(**asdict(request), traits=self._traits)
        elif type(request) is ask.BeginUpload:
            with_traits = BeginUploadWith(**asdict(request), traits=self._traits)
        return cast("ask.R", await self._inner.send(with_traits))

    async def aclose(self) -> None:
        """The inner sender is its owner's to close."""


class _ObjectSdk(SdkSender):
    def __init__(self, place: Bucket, session: AwsSession, config: Config) -> None:
        super().__init__(place, session, config)
        self._senders = {
            **self._senders,
            Describe: self._describe,
            ListFolder: self._list_folder,
            PutWith: self._put,
            BeginUploadWith: self._begin_upload,
        }

    async def _describe(self, request: Describe) -> Facts | None:
        found = await self._facts(request)
        if found is None:
            return None
        return Facts(
            size_bytes=found["ContentLength"],
            modified_us=round(found["LastModified"].timestamp() * 1_000_000),
            content_type=found.get("ContentType"),
            encryption=found.get("ServerSideEncryption"),
            metadata=user_metadata(found["Metadata"]),
        )

    async def _list_folder(self, request: ListFolder) -> FolderPage:
        options = {**self._bucket, "Prefix": request.key, "Delimiter": "/"}
        if request.after is not None:
            options["ContinuationToken"] = request.after
        page = await self._reply(self._doing("list", request), "list_objects_v2", options)
        infos = [
            BlobInfo(o["Key"], o["Size"], round(o["LastModified"].timestamp() * 1_000_000))
            for o in page.get("Contents", ())
        ]
        folders = [found["Prefix"] for found in page.get("CommonPrefixes", ())]
        return FolderPage(infos, folders, page.get("NextContinuationToken"))

    def _beside(self, request: ask.Put | ask.BeginUpload) -> dict[str, Any]:  # Any: the SDK's
        options = super()._beside(request)
        if isinstance(request, PutWith | BeginUploadWith):
            traits = request.traits
            if traits.metadata is not None:
                options["Metadata"][ATTRIBUTES] = json.dumps(dict(traits.metadata))
            if traits.content_type is not None:
                options["ContentType"] = traits.content_type
            if traits.encryption is not None:
                options["ServerSideEncryption"] = traits.encryption
        return options
