"""The two halves of a datastore in an object store, and what moves between them.

`layout` is the directory on this machine: a run that is driven here writes there first, and what
was driven elsewhere is pulled there before it is read. `blobs` is the object store, the truth.
"""

from collections.abc import Callable

from engine.stores.base import BlobStore
from engine.stores.directory import BlobDirectory
from engine.stores.layout import Layout
from engine.stores.metadata.base import MetadataStore
from engine.stores.metadata.rebuild import Decoder
from engine.stores.remote.downloads import Downloads
from engine.stores.remote.named import Named
from engine.stores.remote.pulling import Pulling
from engine.stores.remote.shipper import Shipment, Shipper
from engine.stores.remote.uploads import Uploads


class Replica:
    """One object store and its directory.

    Args:
        blobs: the object store.
        layout: the directory.
        metadata: the list of runs and tasks of the directory.
        decode: what a journal's frame says to metadata.
        named: what blobs it names.
        now_us: the wall clock.
    """

    def __init__(
        self,
        blobs: BlobStore,
        layout: Layout,
        metadata: MetadataStore,
        *,
        decode: Decoder,
        named: Named,
        now_us: Callable[[], int],
    ) -> None:
        self.blobs = blobs
        self.layout = layout
        self._named = named
        self._directory = BlobDirectory(str(layout.blobs))  # fetches nothing by itself
        self.downloads = Downloads(blobs, self._directory)
        self.pulling = Pulling(blobs, layout, metadata, decode, now_us)

    async def aclose(self) -> None:
        await self.blobs.aclose()

    def shipper(self, shipment: Shipment) -> Shipper:
        """What ships a run."""
        uploads = Uploads(self.blobs, self._directory)
        return Shipper(self.blobs, shipment, uploads, self._directory, self._named)
