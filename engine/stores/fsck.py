"""Which blobs that manifests refer to are missing or damaged. Reads bytes, never values.

Nothing is unpickled here: lists of foreach items are looked into, because their layout is msgpack.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice

from msgspec import Struct

from engine.errors import BlobCorruptError, BlobNotFoundError, StoreError
from engine.stores.artifacts import PACKED, inline_view, read_entry, unpack_entry
from engine.stores.directory import BlobDirectory
from engine.stores.manifest import Entry, Manifest
from engine.stores.packed import PackedList
from engine.stores.threads import in_thread

PAGE = 100


class Damage(Struct, frozen=True):
    """A blob that is not what a manifest says.

    `kind` is "missing" or "damaged"; `used_by` is the pathspec of the first artifact that was found
    to need it; `digest` is empty for a value inside the manifest.
    """

    kind: str
    used_by: str
    digest: str
    detail: str = ""


def check(
    manifests: Iterable[Manifest], directory: BlobDirectory, *, read_data: bool = False
) -> Iterator[Damage]:
    """Find every blob that is missing or damaged, each once.

    Args:
        manifests: of the runs to check.
        directory: where their blobs lie.
        read_data: hash each blob. Otherwise one is hashed only if its file is not the one that was
            hashed when it was written; a failing disk changes bytes without changing that.
    """
    seen: set[str] = set()
    for manifest in manifests:
        task = f"{manifest.flow}/{manifest.run_id}/{manifest.step}/{manifest.task_id}"
        for name, entry in manifest.artifacts.items():
            yield from _check(entry, f"{task}/{name}", directory, seen, read_data)
        if manifest.items:
            yield from _check(manifest.items, f"{task} (items)", directory, seen, read_data)


async def check_async(
    manifests: Iterable[Manifest], directory: BlobDirectory, *, read_data: bool = False
) -> AsyncIterator[Damage]:
    """As `check`, in a thread."""
    found = check(manifests, directory, read_data=read_data)
    while page := await in_thread(lambda: list(islice(found, PAGE))):
        for damage in page:
            yield damage


def _check(
    entry: Entry, used_by: str, directory: BlobDirectory, seen: set[str], read_data: bool
) -> Iterator[Damage]:
    digest = entry.digest or ""
    if digest in seen:
        return
    if digest:
        seen.add(digest)
    try:
        _check_bytes(entry, directory, read_data)
        if entry.serializer != PACKED:
            return
        items = [unpack_entry(item) for item in PackedList(read_entry(entry, directory))]
    except BlobNotFoundError as error:
        yield Damage("missing", used_by, digest, error.message)
    except (StoreError, ValueError, TypeError, KeyError) as error:
        yield Damage("damaged", used_by, digest, str(error))
    else:
        for index, item in enumerate(items):
            yield from _check(item, f"{used_by}[{index}]", directory, seen, read_data)


def _check_bytes(entry: Entry, directory: BlobDirectory, read_data: bool) -> None:
    if entry.digest is None:
        inline_view(entry)
        return
    size = directory.size(entry.digest)
    if size is None:
        raise BlobNotFoundError(entry.digest)
    if entry.identity and size != entry.identity.size_bytes:
        raise BlobCorruptError(
            entry.digest,
            expected=f"{entry.identity.size_bytes:,} bytes",
            actual=f"{size:,} bytes",
        )
    if read_data:
        directory.verify(entry.digest)
    else:
        directory.check(entry.digest, entry.identity)
