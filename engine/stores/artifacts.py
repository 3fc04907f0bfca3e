"""Many values <-> one manifest: what a task's artifacts become, and how one of them comes back.

Small values lie inside the manifest, larger ones are blobs. Synchronous, for the worker and for
readers of a local directory; artifact_store.py does the same over any BlobStore.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import msgpack

from engine.errors import BlobCorruptError, StoreError
from engine.stores.codecs import CODEC_MAX_BYTES, compress, decompress
from engine.stores.directory import BlobDirectory, digest_of
from engine.stores.manifest import Entry
from engine.stores.packed import PackedList, pack_list
from engine.stores.previews import preview, type_name
from engine.stores.serializers import Serialized, deserialize, serialize

INLINE_VALUE_MAX = 1024
INLINE_MANIFEST_MAX = 8 * 1024
"""New inline bytes in one manifest; with carried ones it must fit the worker's channel."""
INLINE_ITEM_MAX = 64 * 1024
"""A larger item of a foreach is a blob of its own: mapped by its child, and not copied here."""

CONTENT_IN_MEMORY_MAX = CODEC_MAX_BYTES
"""A larger file is stored as it is read, uncompressed."""

PACKED = "packed"
_PREVIEWED_BYTES = 4096


# -- saving -------------------------------------------------------------------------------------


def save_values(
    values: Mapping[str, object], directory: BlobDirectory, *, step: str
) -> dict[str, Entry]:
    """Store the values that a step leaves.

    Args:
        values: by name, in the order in which they claim the room inside the manifest.
        directory: where blobs go.
        step: for the error.

    Raises:
        UnstorableValueError: a value cannot be pickled.
        StoreAccessError: the directory takes no more.
    """
    room = INLINE_MANIFEST_MAX
    entries = {}
    for name, value in values.items():
        done = serialize(value, artifact=name, step=step)
        is_inline = done.size_bytes <= min(room, INLINE_VALUE_MAX)
        if is_inline:
            room -= done.size_bytes
        entries[name] = _store(done, value, directory, is_inline=is_inline)
    return entries


def save_content(
    chunks: Iterable[bytes], directory: BlobDirectory, *, encoding: str | None
) -> Entry:
    """Store what a file holds: a value that is text in `encoding`, or bytes if that is None.

    Args:
        chunks: the content, in order; of more than CONTENT_IN_MEMORY_MAX it is never held whole.
        directory: where a blob goes.
        encoding: of the text, which the caller has checked.

    Raises:
        StoreAccessError: the directory takes no more. And what `chunks` raise.
    """
    serializer, meta = ("text", {"encoding": encoding}) if encoding else ("bytes", {})
    rest = iter(chunks)
    head: list[bytes] = []
    size = 0
    while size <= CONTENT_IN_MEMORY_MAX and (chunk := next(rest, b"")):
        head.append(chunk)
        size += len(chunk)
    start = b"".join(head)[:_PREVIEWED_BYTES]
    shown: object = start.decode(encoding, "ignore") if encoding else start
    if size <= CONTENT_IN_MEMORY_MAX:
        data = b"".join(head)
        done = Serialized(serializer, (data,), size, meta)
        return _store(done, shown, directory, is_inline=size <= INLINE_VALUE_MAX)
    sizes: list[int] = []
    digest, identity = directory.write_chunks(_measured(head, rest, sizes))
    return Entry(
        serializer=serializer,
        type=type_name(shown),
        size_bytes=sum(sizes),
        sha=digest,
        digest=digest,
        meta=meta,
        identity=identity,
        preview=preview(shown, size),
    )


def _measured(head: list[bytes], rest: Iterator[bytes], sizes: list[int]) -> Iterator[bytes]:
    """Yield `head` and `rest`, letting go of what was yielded, and note the sizes."""
    head.reverse()
    while head:
        sizes.append(len(head[-1]))
        yield head.pop()
    for chunk in rest:
        sizes.append(len(chunk))
        yield chunk


def pack_items(
    items: Sequence[object], directory: BlobDirectory, *, step: str, artifact: str = "items"
) -> Entry:
    """Store the items of a foreach, each readable without the others.

    Args:
        items: what the foreach ranges over, in order.
        directory: where blobs go.
        step: for the error.
        artifact: the name the foreach was given, for the error.

    Raises:
        UnstorableValueError: an item cannot be pickled; the path says which.
        StoreAccessError: the directory takes no more.
    """
    packed = [
        _pack_scalar(item) or _pack_item(item, index, directory, step, artifact)
        for index, item in enumerate(items)
    ]
    data = pack_list(packed)
    count = len(packed)
    done = Serialized(PACKED, (data,), len(data), {"count": count}, is_mappable=True)
    return _store(done, items, directory, is_inline=len(data) <= INLINE_VALUE_MAX)


def _pack_scalar(item: object) -> bytes | None:
    """The entry of an int, as the general way makes it, at a third of its 9 us."""
    if type(item) is int and -(2**63) <= item < 2**63:
        text = str(item)
        data = text.encode()
        sha = digest_of((data,))
        wire = {"s": "json", "t": "int", "n": len(data), "h": sha, "i": data, "p": text}
        return bytes(msgpack.packb(wire))
    return None


def _pack_item(
    item: object, index: int, directory: BlobDirectory, step: str, artifact: str
) -> bytes:
    done = serialize(item, artifact=f"{artifact}[{index}]", step=step)
    is_inline = done.size_bytes <= INLINE_ITEM_MAX
    return _store(done, item, directory, is_inline=is_inline).pack()


def _store(done: Serialized, value: object, directory: BlobDirectory, *, is_inline: bool) -> Entry:
    inline = digest = codec = identity = None
    if is_inline:
        inline = b"".join(done.parts)
        sha = digest_of((inline,))
    elif not done.is_mappable and (packed := compress(done.parts, done.size_bytes)):
        codec, data = packed
        sha = digest_of(done.parts)
        digest, identity = directory.write((data,))
    else:
        sha, identity = directory.write(done.parts)
        digest = sha
    return Entry(
        serializer=done.serializer,
        type=type_name(value),
        size_bytes=done.size_bytes,
        sha=sha,
        inline=inline,
        digest=digest,
        codec=codec,
        meta=done.meta,
        identity=identity,
        preview=preview(value, done.size_bytes),
    )


# -- loading ------------------------------------------------------------------------------------


def load_entry(entry: Entry, directory: BlobDirectory, *, allow_pickle: bool = True) -> object:
    """Load one value. Arrays are views of a private mapping: changing them changes no blob.

    Raises:
        BlobNotFoundError, BlobCorruptError, StoreAccessError: the blob is not there as it was.
        StoreError: no serializer or codec of that name is known, or pickle is refused.
        UnreadableValueError: the value's class cannot be imported here.
    """
    return value_of(entry, read_entry(entry, directory), allow_pickle=allow_pickle)


def read_entry(entry: Entry, directory: BlobDirectory) -> memoryview:
    """The bytes of a value as they are stored, verified, in private writable memory."""
    if entry.digest is None:
        return inline_view(entry)
    return directory.map(entry.digest, entry.identity)


def mapped_if_here(directory: BlobDirectory, entry: Entry) -> memoryview | None:
    """The stored bytes of a blob that lies in the directory, unhurt; it is not fetched."""
    if entry.digest is None or not directory.exists(entry.digest):
        return None
    with suppress(StoreError):
        return directory.map(entry.digest, entry.identity)
    return None


def load_item(entry: Entry, index: int, directory: BlobDirectory) -> object:
    """Load item `index` of what `pack_items` stored, reading nothing of the others.

    Raises:
        IndexError: there is no such item. And as `load_entry`.
    """
    return load_entry(Entry.unpack(item_bytes(entry, index, directory)), directory)


def item_bytes(entry: Entry, index: int, directory: BlobDirectory) -> bytes:
    """The packed Entry of item `index`; a child's TaskSpec holds it."""
    return PackedList(read_entry(entry, directory))[index]


def is_same_value(a: Entry, b: Entry) -> bool:
    """Whether two entries hold the same value, told without loading either.

    The digest alone does not say: four zero bytes are an int32 and also two int16.
    """
    return a.sha == b.sha and a.serializer == b.serializer and dict(a.meta) == dict(b.meta)


def inline_view(entry: Entry) -> memoryview:
    """The bytes inside an entry, verified, in private writable memory."""
    if entry.inline is None:
        raise StoreError("an entry of a manifest has neither bytes nor a digest")
    actual = digest_of((entry.inline,))
    if actual != entry.sha:
        raise BlobCorruptError("a value in a manifest", expected=entry.sha, actual=actual)
    return memoryview(bytearray(entry.inline))


def value_of(entry: Entry, stored: memoryview, *, allow_pickle: bool = True) -> object:
    """The value of an entry, from its verified bytes as they are stored."""
    if entry.serializer == PACKED:
        raise StoreError("the list of a foreach is read item by item")
    view = memoryview(decompress(entry.codec, stored, entry.size_bytes)) if entry.codec else stored
    return deserialize(entry.serializer, view, entry.meta, allow_pickle=allow_pickle)
