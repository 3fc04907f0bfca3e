"""Removes what nobody needs: runs that were chosen, then the blobs that no run refers to.

A blob is needed if a manifest in a journal names it, or if a run that is alive is about to commit
one that does. The second half cannot be read anywhere: between its write of a blob and its commit a
run may stop for any time, and the blob may be an old one, because a writer that finds equal bytes
writes nothing and leaves no trace (a touch would change the times by which readers know that a file
is still the one that was hashed). Age alone therefore proves nothing. So blobs are removed only
while no run is alive:

1. With the gate shut (gate.py) the runs are listed: each of them has taken its lease, for a run is
   inside the gate until it has (one that resumes another, since before it read that one's journal).
   If a lease is still held, no blob is removed now; nothing is lost by waiting, for what no run
   refers to is found by any later collection.
2. The journals of these runs are final, for a run that has ended is never driven again (a resume is
   a new run). They are read with the gate open. If one cannot be read, nothing is removed.
3. Blobs are removed by batches, each with the gate shut. If a run is there that was not in the
   list, it may have found a blob that is about to go, so the collection ends. No run begins in the
   course of a batch, so at each removal every run there is has ended and was read.

The grace period is for writers that are no runs, and beyond what the above needs. It does not hold
for what a run referred to that is deleted in the same call.

A run is deleted by one rename to a name that is no run's; what a killed process left of that is
removed by the next collection. Bytes are never unpickled here.
"""

import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from msgspec import Struct, field

from engine.errors import NotFoundError, RunHeldError, StoreError
from engine.stores.access import access_error
from engine.stores.artifacts import PACKED, read_entry
from engine.stores.directory import DIGEST_HEX, BlobDirectory
from engine.stores.gate import shut
from engine.stores.journals import JournalReader, run_holder
from engine.stores.layout import Layout
from engine.stores.leases import Holder
from engine.stores.manifest import Entry, Manifest
from engine.stores.packed import PackedList

BATCH = 500
"""Blobs removed with the gate shut once: 30 ms in which no run can begin."""

_DELETED = ".deleted-"
_PAUSE_S = 0.01  # between batches: longer than a run that waits at the gate looks away

ManifestsIn = Callable[[bytes], Sequence[bytes]]
"""A journal's payload to the packed manifests in it. The scheduler, which stands above the stores,
knows what a payload means."""


class RunName(Struct, frozen=True, order=True):
    flow: str
    run_id: str

    def __str__(self) -> str:
        return f"{self.flow}/{self.run_id}"


class Alive(Struct, frozen=True):
    """A run that somebody drives."""

    run: RunName
    holder: Holder


class Standing(Struct, frozen=True):
    """The runs of a datastore at one instant."""

    runs: frozenset[RunName]
    alive: Sequence[Alive]


class Stored(Struct, frozen=True):
    """A file under `blobs`. `digest` is None for one in the making."""

    path: str
    size_bytes: int
    modified_us: int
    digest: bytes | None


class Request(Struct, frozen=True):
    """What to collect.

    `runs` are deleted first. A blob is removed if no other run refers to it and it is older than
    `grace_us` at `now_us`, or was referred to by one of `runs`.
    """

    manifests_in: ManifestsIn
    now_us: int
    grace_us: int
    runs: Sequence[RunName] = ()
    is_dry_run: bool = False
    between_batches: Callable[[], object] = lambda: threading.Event().wait(_PAUSE_S)


class Collected(Struct):
    """What was removed, or with `is_dry_run` would be.

    `uploads` in parts had been left unfinished; they are of object stores.
    `alive` runs kept every blob in its place; so did `unreadable` journals, and `began`, a run that
    began meanwhile, those that were left. `record_bytes` are of the journals and logs of `runs`.
    """

    runs: list[RunName] = field(default_factory=list)
    record_bytes: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    uploads: int = 0
    alive: Sequence[Alive] = ()
    unreadable: dict[str, str] = field(default_factory=dict)
    began: RunName | None = None

    @property
    def is_complete(self) -> bool:
        """Whether everything was removed that nobody needs."""
        return not (self.alive or self.unreadable or self.began)


def collect(layout: Layout, request: Request) -> Collected:
    """Delete the runs of the request, and remove the blobs that no run needs then.

    Raises:
        RunHeldError: one of the runs is alive; nothing is removed.
        StoreAccessError: the file system refuses.
        StoreUnavailableError: the gate cannot be shut.
    """
    standing = survey(layout)
    for alive in standing.alive:
        if alive.run in request.runs:
            raise _held(alive)
    done = Collected(alive=standing.alive)
    theirs = _delete(layout, request, done)
    kept = standing.runs - set(request.runs)
    needed = mark(layout, sorted(kept), request.manifests_in, done)
    before_us = request.now_us - request.grace_us
    rubbish = (
        file
        for file in stored_files(layout)
        if file.digest not in needed and (file.modified_us < before_us or file.digest in theirs)
    )
    if request.is_dry_run:
        _count(rubbish, done)
    elif done.is_complete:
        _sweep(layout, rubbish, request, standing.runs, done)
    return done


def survey(layout: Layout) -> Standing:
    """List the runs with the gate shut, then find those of them that are alive."""
    with shut(str(layout.root / "runs")):
        runs = _runs(layout)
    alive = [
        Alive(run, holder)
        for run in sorted(runs)
        if (holder := run_holder(str(layout.lock(run.flow, run.run_id)))) is not None
    ]
    return Standing(runs, alive)


def delete_run(layout: Layout, run: RunName) -> None:
    """Take a run's journal and log away. Its blobs stay until a collection.

    Raises:
        RunHeldError: it is alive.
        StoreAccessError: the file system refuses.
    """
    folder = layout.run(run.flow, run.run_id)
    if (holder := run_holder(str(layout.lock(run.flow, run.run_id)))) is not None:
        raise _held(Alive(run, holder))
    doomed = folder.with_name(f"{_DELETED}{secrets.token_hex(8)}")
    try:
        folder.rename(doomed)
        shutil.rmtree(doomed)
        with shut(str(layout.root / "runs")), suppress(OSError):  # other runs are in it
            folder.parent.rmdir()
    except FileNotFoundError:
        return  # another process has deleted it
    except OSError as error:
        raise access_error(error, str(folder), "delete") from error


def digests_of(
    layout: Layout, run: RunName, manifests_in: ManifestsIn, *, behind: int = 0
) -> set[bytes]:
    """The digests of all blobs that a run's journal refers to, each as 32 bytes.

    Args:
        layout: the datastore.
        run: the run.
        manifests_in: see there.
        behind: only those of frames that end behind this offset.

    Raises:
        NotFoundError: it has no journal.
        StoreError: the journal, or a list of foreach items in it, cannot be read.
    """
    directory = layout.blob_directory()
    found: set[bytes] = set()
    with JournalReader(str(layout.journal(run.flow, run.run_id))) as journal:
        for _, payload in journal.scan():
            for packed in manifests_in(payload) if journal.position > behind else ():
                manifest = Manifest.unpack(packed)
                for entry in manifest.artifacts.values():
                    _add(entry, directory, found)
                if manifest.items:
                    _add(manifest.items, directory, found)
    return found


def record_bytes(layout: Layout, run: RunName) -> int:
    """The size of a run's journal and log."""
    total = 0
    for path in (layout.journal(run.flow, run.run_id), layout.log(run.flow, run.run_id)):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def stored_files(layout: Layout) -> Iterator[Stored]:
    """Every file under `blobs`, in no order."""
    for folder in _entries(layout.blobs):
        if folder.is_dir(follow_symlinks=False):
            for file in _entries(folder.path):
                with suppress(FileNotFoundError):  # renamed or removed meanwhile
                    found = file.stat(follow_symlinks=False)
                    digest = _digest(file.name) if folder.name != "tmp" else None
                    if digest is not None or folder.name == "tmp":
                        at_us = found.st_mtime_ns // 1000
                        yield Stored(file.path, found.st_size, at_us, digest)


def _entries(folder: Path | str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise access_error(error, str(folder), "list") from error


def _digest(name: str) -> bytes | None:
    if len(name) != DIGEST_HEX or name.strip("0123456789abcdef"):
        return None
    return bytes.fromhex(name)


def _runs(layout: Layout) -> frozenset[RunName]:
    return frozenset(
        RunName(flow, run_id) for flow in layout.flows() for run_id in layout.run_ids(flow)
    )


def _held(alive: Alive) -> RunHeldError:
    holder = alive.holder
    return RunHeldError(str(alive.run), host=holder.host, pid=holder.pid, since=holder.since)


def _delete(layout: Layout, request: Request, done: Collected) -> frozenset[bytes]:
    """Delete the runs of the request; return what they referred to, as far as that can be read."""
    theirs: set[bytes] = set()
    for run in request.runs:
        done.runs.append(run)
        done.record_bytes += record_bytes(layout, run)
        with suppress(StoreError):  # a damaged run can be deleted; its blobs go with the others
            theirs |= _read(layout, run, request.manifests_in)
        if not request.is_dry_run:
            delete_run(layout, run)
    if not request.is_dry_run:
        for remains in (layout.root / "runs").glob(f"*/{_DELETED}*"):
            shutil.rmtree(remains, ignore_errors=True)
    return frozenset(theirs)


def mark(
    layout: Layout, runs: Iterable[RunName], manifests_in: ManifestsIn, done: Collected
) -> set[bytes]:
    needed: set[bytes] = set()
    for run in runs:
        try:
            needed |= _read(layout, run, manifests_in)
        except StoreError as error:
            done.unreadable[str(run)] = error.message
    return needed


def _read(layout: Layout, run: RunName, manifests_in: ManifestsIn) -> set[bytes]:
    """As `digests_of`; a run that has no journal, or has it no more, refers to nothing."""
    try:
        return digests_of(layout, run, manifests_in)
    except NotFoundError:
        return set()


def _add(entry: Entry, directory: BlobDirectory, found: set[bytes]) -> None:
    if entry.digest is not None:
        digest = bytes.fromhex(entry.digest)
        if digest in found:
            return
        found.add(digest)
    if entry.serializer == PACKED:
        for item in PackedList(read_entry(entry, directory)):
            _add(Entry.unpack(item), directory, found)


def _count(rubbish: Iterable[Stored], done: Collected) -> None:
    for file in rubbish:
        done.blobs += 1
        done.blob_bytes += file.size_bytes


def _sweep(
    layout: Layout,
    rubbish: Iterator[Stored],
    request: Request,
    known: frozenset[RunName],
    done: Collected,
) -> None:
    while batch := list(islice(rubbish, BATCH)):
        with shut(str(layout.root / "runs")):
            if fresh := _runs(layout) - known:
                done.began = min(fresh)
                return
            for file in batch:
                _remove(file.path)
            _count(batch, done)
        request.between_batches()


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise access_error(error, path, "remove") from error
