"""Values and commits over any BlobStore. Locally the journal is the commit; see journals.py."""

import asyncio

from engine.stores.artifacts import inline_view, value_of
from engine.stores.base import BlobStore
from engine.stores.cas import ContentAddressedStore
from engine.stores.manifest import Entry, Manifest


def manifest_key(flow: str, run_id: str, step: str, task_id: str) -> str:
    """The one key under which any attempt of a task may commit."""
    return f"runs/{flow}/{run_id}/{step}/{task_id}/manifest"


class ArtifactStore:
    """Loads the values of manifests, and commits manifests by conditional put."""

    def __init__(self, blobs: BlobStore, cas: ContentAddressedStore | None = None) -> None:
        self._blobs = blobs
        self._cas = cas or ContentAddressedStore(blobs)

    async def load(self, entry: Entry, *, allow_pickle: bool = True) -> object:
        """Load one value.

        Raises:
            BlobNotFoundError, BlobCorruptError, StoreUnavailableError: the blob is not there as it
                was. And as `engine.stores.artifacts.load_entry`.
        """
        if entry.digest is None:
            return value_of(entry, inline_view(entry), allow_pickle=allow_pickle)
        data = bytearray(await self._cas.get(entry.digest))
        return await asyncio.to_thread(value_of, entry, memoryview(data), allow_pickle=allow_pickle)

    async def commit(self, key: str, manifest: Manifest) -> bool:
        """Commit an attempt: of all that try under one key, exactly one gets True."""
        return await self._blobs.put(key, (manifest.pack(),), if_absent=True)

    async def committed(self, key: str) -> Manifest | None:
        """What was committed under `key`, None when nothing was.

        Raises:
            StoreError: it cannot be read.
        """
        if await self._blobs.stat(key) is None:
            return None
        return Manifest.unpack(await self._blobs.get(key))
