"""Every store keeps the laws of its seam."""

from pathlib import Path

from engine.stores.layout import create_layout
from engine.stores.local import LocalBlobStore
from engine.stores.logs import LocalLogStore
from engine.stores.memory import MemoryBlobStore
from engine.stores.metadata.local import LocalMetadata
from engine.stores.metadata.memory import MemoryMetadata
from engine.testing.blob_contract import BlobStoreContract
from engine.testing.store_contract import LogStoreContract, MetadataContract


class TestMemoryBlobStore(BlobStoreContract):
    async def make(self, tmp_path: Path) -> MemoryBlobStore:
        return MemoryBlobStore()


class TestLocalBlobStore(BlobStoreContract):
    async def make(self, tmp_path: Path) -> LocalBlobStore:
        return LocalBlobStore(tmp_path / "store")


class TestLocalBlobStoreThatSurvivesPowerLoss(BlobStoreContract):
    async def make(self, tmp_path: Path) -> LocalBlobStore:
        return LocalBlobStore(tmp_path / "store", durability="power")


class TestMemoryMetadata(MetadataContract):
    async def make(self, tmp_path: Path) -> MemoryMetadata:
        return MemoryMetadata()


class TestLocalMetadata(MetadataContract):
    async def make(self, tmp_path: Path) -> LocalMetadata:
        return LocalMetadata(tmp_path / "metadata.db")


class TestLocalLogStore(LogStoreContract):
    async def make(self, tmp_path: Path) -> LocalLogStore:
        return LocalLogStore(create_layout(tmp_path / "datastore"))
