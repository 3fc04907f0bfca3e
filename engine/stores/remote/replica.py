"""The two halves of a datastore in an object store, and what moves between them.

`layout` is the directory on this machine: a run that is driven here writes there first, and what
was driven elsewhere is pulled there before it is read. `blobs` is the object store, the truth.
"""

from collections.abc import Callable

from engine.errors import NotFoundError
from engine.stores.base import BlobStore
from engine.stores.directory import BlobDirectory
from engine.stores.frames import FrameReader
from engine.stores.journals import JOURNAL_MAGIC, run_holder
from engine.stores.layout import Layout
from engine.stores.logs import LOG_MAGIC
from engine.stores.metadata.base import MetadataStore
from engine.stores.metadata.rebuild import Decoder
from engine.stores.remote.cache import mark_shipped, mark_unshipped, trim
from engine.stores.remote.downloads import Downloads
from engine.stores.remote.keys import JOURNAL, LOG
from engine.stores.remote.named import Named
from engine.stores.remote.pulling import Pulling, extent
from engine.stores.remote.shipper import Growing, Shipment, Shipper
from engine.stores.remote.uploads import Uploads
from engine.stores.threads import in_thread

_MAGICS = {JOURNAL: JOURNAL_MAGIC, LOG: LOG_MAGIC}


class Replica:
    """One object store and its directory.

    Args:
        blobs: the object store.
        layout: the directory.
        metadata: the list of runs and tasks of the directory.
        decode: what a journal's frame says to metadata.
        named: what blobs it names.
        now_us: the wall clock.
        cache_max_bytes: the most bytes of blobs that the directory keeps.
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
        cache_max_bytes: int,
    ) -> None:
        self.blobs = blobs
        self.layout = layout
        self._named = named
        self._cache_max_bytes = cache_max_bytes
        self._directory = BlobDirectory(str(layout.blobs))  # fetches nothing by itself
        self.downloads = Downloads(blobs, self._directory)
        self.pulling = Pulling(blobs, layout, metadata, decode, now_us)

    async def aclose(self) -> None:
        await self.blobs.aclose()

    def shipper(self, shipment: Shipment) -> Shipper:
        """What ships a run."""
        uploads = Uploads(self.blobs, self._directory)
        return Shipper(self.blobs, shipment, uploads, self._directory, self._named)

    def mark_unshipped(self, flow: str, run_id: str) -> None:
        """Say that a run that begins has what is nowhere else. To be called inside the gate."""
        mark_unshipped(self.layout, flow, run_id)

    async def trim(self) -> None:
        """Let go of blobs that are cached beyond the bound."""
        await in_thread(trim, self.layout, self._cache_max_bytes)

    async def settle(self, flow: str, run_id: str) -> None:
        """Bring a run that nobody drives up to date on both sides.

        A driver of this machine that was killed may have left what it had no time to ship; what
        another machine shipped may not be here.

        Raises:
            NotFoundError: there is no such run.
            StoreError: the object store does not answer, or does not take it.
        """
        if not await self.pulling.run(flow, run_id):
            raise NotFoundError(
                f"there is no run {flow}/{run_id}", hint=f"`aflow list {flow}` lists its runs"
            )
        if run_holder(str(self.layout.lock(flow, run_id))) is not None:
            return
        here = [await in_thread(self._sound_end, flow, run_id, name) for name in (JOURNAL, LOG)]
        segments = await self.pulling.segments(flow, run_id)
        there = extent(segments[JOURNAL]), extent(segments[LOG])
        if there[0] >= here[0] and there[1] >= here[1]:
            await in_thread(mark_shipped, self.layout, flow, run_id)
            return
        shipment = Shipment(
            flow,
            run_id,
            Growing(str(self.layout.journal(flow, run_id)), lambda: here[0]),
            Growing(str(self.layout.log(flow, run_id)), lambda: here[1]),
            there,
        )
        shipper = self.shipper(shipment)
        shipper.close()
        await shipper.run()
        await in_thread(mark_shipped, self.layout, flow, run_id)

    def _sound_end(self, flow: str, run_id: str, name: str) -> int:
        try:
            with FrameReader(str(self.layout.run(flow, run_id) / name), _MAGICS[name]) as reader:
                return reader.end()
        except NotFoundError:
            return 0
