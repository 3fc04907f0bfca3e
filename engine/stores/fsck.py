"""Which blobs that manifests refer to are missing or damaged. Reads bytes, never values.

Nothing is unpickled here: lists of foreach items are looked into, because their layout is msgpack.
"""

from collections.abc import Iterator

from msgspec import Struct

from engine.errors import BlobCorruptError, BlobNotFoundError, StoreError
from engine.stores.artifacts import PACKED, inline_view, read_entry
from engine.stores.directory import BlobDirectory
from engine.stores.manifest import Entry, Manifest
from engine.stores.packed import PackedList

_UNREADABLE = (StoreError, ValueError, TypeError, KeyError)
_DIGEST_KEY = b"\xa1d\xd9\x40"  # msgpack: the key "d" and a text of 64 characters


class Damage(Struct, frozen=True):
    """Something that is stored and is not what was written.

    `kind` is "missing" or "damaged"; `path` the file, from the datastore's root; `used_by` the
    pathspec of the run, or of the first artifact that was found to need a blob; `digest` that of a
    blob, empty for all else.
    """

    kind: str
    path: str
    used_by: str
    detail: str = ""
    digest: str = ""


class BlobCheck:
    """Finds every blob that is missing or damaged, each once.

    Args:
        directory: where the blobs lie.
        read_data: hash each blob. Otherwise one is hashed only if its file is not the one that was
            hashed when it was written; a failing disk changes bytes without changing that.
    """

    def __init__(self, directory: BlobDirectory, *, read_data: bool = False) -> None:
        self._directory = directory
        self._read_data = read_data
        self._seen: set[str] = set()

    def damages(self, manifest: Manifest, journal: str) -> Iterator[Damage]:
        """What is wrong with the values of a manifest, which stands in `journal`."""
        task = f"{manifest.flow}/{manifest.run_id}/{manifest.step}/{manifest.task_id}"
        for name, entry in manifest.artifacts.items():
            yield from self._check(entry, f"{task}/{name}", journal)
        if manifest.items:
            yield from self._check(manifest.items, f"{task} (items)", journal)

    def _check(self, entry: Entry, used_by: str, within: str) -> Iterator[Damage]:
        digest = entry.digest or ""
        if digest in self._seen:
            return
        path = within
        if digest:
            self._seen.add(digest)
            path = f"blobs/{digest[:2]}/{digest}"
        try:
            _check_bytes(entry, self._directory, read_data=self._read_data)
            items = _items_of(entry, self._directory)
        except BlobNotFoundError as error:
            yield Damage("missing", path, used_by, error.message, digest)
        except _UNREADABLE as error:
            yield Damage("damaged", path, used_by, str(error), digest)
        else:
            for index, item in items:
                yield from self._check(item, f"{used_by}[{index}]", path)


class Soundness:
    """Whether the blobs of manifests are what was written; each is looked at once.

    A blob whose file is the one that was hashed when it was written costs a look at its facts.
    """

    def __init__(self, directory: BlobDirectory) -> None:
        self._directory = directory
        self._verdicts: dict[str, bool] = {}

    def of(self, manifest: Manifest) -> bool:
        """Whether every value of a manifest can be loaded as it was stored."""
        entries = [*manifest.artifacts.values(), *([manifest.items] if manifest.items else [])]
        return all(map(self._of, entries))

    def _of(self, entry: Entry) -> bool:
        if entry.digest is None:  # the frame's CRC has answered for what lies in the manifest
            return entry.serializer != PACKED or self._is_sound(entry)
        verdict = self._verdicts.get(entry.digest)
        if verdict is None:
            verdict = self._verdicts[entry.digest] = self._is_sound(entry)
        return verdict

    def _is_sound(self, entry: Entry) -> bool:
        try:
            _check_bytes(entry, self._directory, read_data=False)
            items = _items_of(entry, self._directory)
        except _UNREADABLE:
            return False
        return all(self._of(item) for _, item in items)


def _items_of(entry: Entry, directory: BlobDirectory) -> list[tuple[int, Entry]]:
    """The items of a foreach that are blobs of their own, by index."""
    if entry.serializer != PACKED:
        return []
    items = enumerate(PackedList(read_entry(entry, directory)))
    return [(index, Entry.unpack(item)) for index, item in items if _DIGEST_KEY in item]


def _check_bytes(entry: Entry, directory: BlobDirectory, *, read_data: bool) -> None:
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
