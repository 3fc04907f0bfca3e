"""What drivers of other runs had sent to Batch before they ended: work in flight to be adopted.

A job there does the work of a task here if its order is the same, byte by byte, but for the run's
own names, and if it runs the same code. That is so for tasks whose inputs were all reused. What it
prints and commits is filed under the other run; here it counts as reused, as that run's results do.

What had failed there, as its driver has heard, is no work in flight, though its last word may lie
there still, or others may be at work in the container that they shared: it is sent anew.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

from msgspec import Struct
from msgspec.structs import replace

from engine.executors.base import Job
from engine.executors.batch_requests import is_moved
from engine.executors.batch_submit import Sent
from engine.ids import TaskKey
from engine.stores.base import BlobStore
from engine.stores.manifest import Entry
from engine.stores.packed import PackedList
from engine.stores.remote.parcels import Boot, Order, parcels_prefix, words_prefix
from engine.stores.taskspec import TaskSpec

HasFailed = Callable[[str, TaskKey, int], bool]


class _Place(Struct, frozen=True):
    run_id: str
    parcel: str
    index: int
    name: str  # of the job there
    task: TaskKey
    attempt: int


class Earlier:
    """The orders of runs, read when they are first asked for.

    Args:
        blobs: the object store.
        run_ids: the run that this one goes on from, and those that it came from: a job that it had
            adopted is filed under the one that has sent it.
        boot: of this run: jobs of other code are not adopted.
        has_failed: whether an attempt at a task, of one of these runs, is known to have failed.
    """

    def __init__(
        self,
        blobs: BlobStore,
        run_ids: Sequence[str],
        boot: Boot,
        has_failed: HasFailed = lambda run_id, task, attempt: False,
    ) -> None:
        self._has_failed = has_failed
        self._run_ids = run_ids
        self._blobs = blobs
        self._boot = boot
        self._orders: dict[bytes, _Place] | None = None
        self._sizes: dict[str, tuple[int, int]] = {}  # jobs of a parcel, and of a container
        self._names: dict[str, str] = {}  # here, by the name there
        self._runs: dict[str, str] = {}  # of those that were adopted, by the name here

    @property
    def words(self) -> list[str]:
        """Where the words of what was adopted are, as prefixes of keys."""
        return [words_prefix(self._boot.flow, run_id) for run_id in {*self._runs.values()}]

    def name_here(self, there: str) -> str:
        """What a job of the other run is called in this one."""
        return self._names.get(there, there)

    def run_of(self, name: str) -> str | None:
        """The run that has sent what was adopted as job `name`, if anything was."""
        return self._runs.get(name)

    async def sent(self, jobs: Sequence[Job]) -> Mapping[str, Sent]:
        """The parcels with orders equal to those of `jobs`; see `executors.batch_submit.Post`.

        Raises:
            StoreError: the store does not answer, or a parcel is damaged.
        """
        if self._orders is None:
            self._orders = await self._read()
        found: dict[str, list[str]] = {}
        for job in jobs if self._orders else ():
            # Once: whoever asks again for the same is a later attempt, as this one has failed.
            place = self._orders.pop(_work_of(TaskSpec.unpack(job.spec)), None)
            if place and not self._has_failed(place.run_id, place.task, place.attempt):
                names = found.setdefault(place.parcel, [""] * self._sizes[place.parcel][0])
                names[place.index] = job.name
                self._names[place.name] = job.name
                self._runs[job.name] = place.run_id
        return {parcel: Sent(names, self._sizes[parcel][1]) for parcel, names in found.items()}

    async def _read(self) -> dict[bytes, _Place]:
        found: dict[bytes, _Place] = {}
        for run_id in reversed(self._run_ids):  # what was sent last is what counts
            await self._read_run(run_id, found)
        return found

    async def _read_run(self, run_id: str, found: dict[bytes, _Place]) -> None:
        prefix = parcels_prefix(self._boot.flow, run_id)
        sent: list[tuple[tuple[int, bool], bytes, _Place]] = []
        for key in [info.key async for info in self._blobs.list(prefix)]:
            first, *orders = PackedList(await self._blobs.get(key))
            boot = Boot.unpack(first)
            if _code_of(boot) != _code_of(self._boot):
                continue
            parcel = key.rpartition("/")[2]
            self._sizes[parcel] = len(orders), boot.pack
            for index, packed in enumerate(orders):
                order = Order.unpack(packed)
                spec = TaskSpec.unpack(order.spec)
                task = TaskKey(spec.step, spec.frames)
                place = _Place(run_id, parcel, index, order.name, task, spec.attempt)
                sent.append(((spec.attempt, is_moved(parcel)), _work_of(spec), place))
        sent.sort(key=itemgetter(0))  # an attempt that was moved was sent twice
        found.update((work, place) for _, work, place in sent)


def _code_of(boot: Boot) -> tuple[object, ...]:
    """What a job runs, as far as that can be told: equal for equal code, however it is started."""
    code = Entry.unpack(boot.code).sha if boot.code else ""
    return boot.target, boot.program, code, tuple(boot.decorators)


def _work_of(spec: TaskSpec) -> bytes:
    """A task's order without what differs from run to run."""
    return replace(
        spec,
        run_id="",
        origin_run_id=None,
        attempt=0,
        last_attempt=True,
        datastore="",
        broker=None,
        username="",
        tags=(),
    ).pack()
