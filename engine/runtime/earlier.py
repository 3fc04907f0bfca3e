"""What the driver of another run had sent to Batch before it died: work in flight to be adopted.

A job there does the work of a task here if its order is the same, byte by byte, but for the run's
own names, and if it runs the same code. That is so for tasks whose inputs were all reused. What it
prints and commits is filed under the other run; here it counts as reused, as that run's results do.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from engine.executors.base import Job
from engine.executors.batch_submit import Sent
from engine.stores.base import BlobStore
from engine.stores.manifest import Entry
from engine.stores.packed import PackedList
from engine.stores.remote.parcels import Boot, Order, parcels_prefix, words_prefix
from engine.stores.taskspec import TaskSpec


class _Place(Struct, frozen=True):
    parcel: str
    index: int
    name: str  # of the job there


class Earlier:
    """The orders of run `run_id`, read when they are first asked for.

    Args:
        blobs: the object store.
        run_id: the run that this one goes on from.
        boot: of this run: jobs of other code are not adopted.
    """

    def __init__(self, blobs: BlobStore, run_id: str, boot: Boot) -> None:
        self.run_id = run_id
        self.words = words_prefix(boot.flow, run_id)
        self._blobs = blobs
        self._boot = boot
        self._orders: dict[bytes, _Place] | None = None
        self._sizes: dict[str, tuple[int, int]] = {}  # jobs of a parcel, and of a container
        self._names: dict[str, str] = {}  # here, by the name there

    @property
    def is_adopted(self) -> bool:
        """Whether anything of it was."""
        return bool(self._names)

    def name_here(self, there: str) -> str:
        """What a job of the other run is called in this one."""
        return self._names.get(there, there)

    def has_adopted(self, name: str) -> bool:
        return name in self._names.values()

    async def sent(self, jobs: Sequence[Job]) -> Mapping[str, Sent]:
        """The parcels with orders equal to those of `jobs`; see `executors.batch_submit.Post`.

        Raises:
            StoreError: the store does not answer, or a parcel is damaged.
        """
        if self._orders is None:
            self._orders = await self._read()
        found: dict[str, list[str]] = {}
        for job in jobs if self._orders else ():
            place = self._orders.get(_work_of(job.spec))
            if place is not None:
                names = found.setdefault(place.parcel, [""] * self._sizes[place.parcel][0])
                names[place.index] = job.name
                self._names[place.name] = job.name
        return {parcel: Sent(names, self._sizes[parcel][1]) for parcel, names in found.items()}

    async def _read(self) -> dict[bytes, _Place]:
        found: dict[bytes, _Place] = {}
        prefix = parcels_prefix(self._boot.flow, self.run_id)
        keys = [info.key async for info in self._blobs.list(prefix)]
        for key in keys:
            first, *orders = PackedList(await self._blobs.get(key))
            boot = Boot.unpack(first)
            if _code_of(boot) != _code_of(self._boot):
                continue
            parcel = key.rpartition("/")[2]
            self._sizes[parcel] = len(orders), boot.pack
            for index, packed in enumerate(orders):
                order = Order.unpack(packed)
                found[_work_of(order.spec)] = _Place(parcel, index, order.name)
        return found


def _code_of(boot: Boot) -> tuple[object, ...]:
    """What a job runs, as far as that can be told: equal for equal code."""
    code = Entry.unpack(boot.code).sha if boot.code else ""
    return boot.target, boot.program, code, tuple(boot.decorators), boot.isolation


def _work_of(spec: bytes) -> bytes:
    """A task's order without what differs from run to run."""
    return replace(
        TaskSpec.unpack(spec),
        run_id="",
        origin_run_id=None,
        attempt=0,
        last_attempt=True,
        datastore="",
        broker=None,
        username="",
        tags=(),
    ).pack()
