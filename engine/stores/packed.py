"""A list of byte strings in one blob, each readable alone: foreach items, a join's inputs.

Layout: magic "AFL1", u32 count, count + 1 u64 offsets from the start of the body, then the body.
All little-endian. A foreach over 100,000 items is one blob, and each child reads only its own.
"""

import struct
from collections.abc import Iterator, Sequence

from msgspec import Struct

from engine.errors import StoreError

MAGIC = b"AFL1"
_HEAD = struct.Struct("<4sI")
HEAD_BYTES = _HEAD.size


def pack_list(items: Sequence[bytes]) -> bytes:
    """Lay out `items`, at most 2**32 - 1 of them."""
    offsets = [0]
    for item in items:
        offsets.append(offsets[-1] + len(item))
    return b"".join(
        (_HEAD.pack(MAGIC, len(items)), struct.pack(f"<{len(offsets)}Q", *offsets), *items)
    )


class PackedListBuilder:
    """Lays out a list whose length is known, item by item, holding its bytes once.

    `pack_list` holds every item and then the whole: for a join over 100,000 that is 80 MB more.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._added = 0
        self._body = _HEAD.size + 8 * (count + 1)
        self._buffer = bytearray(self._body)
        _HEAD.pack_into(self._buffer, 0, MAGIC, count)

    def add(self, item: bytes) -> None:
        """Append the next item; there must be one left to add."""
        if self._added == self._count:
            raise ValueError(f"a packed list of {self._count} items is full")
        self._buffer += item
        self._added += 1
        end = len(self._buffer) - self._body
        struct.pack_into("<Q", self._buffer, _HEAD.size + 8 * self._added, end)

    def finish(self) -> bytearray:
        """The list's bytes; every item must have been added."""
        if self._added != self._count:
            raise ValueError(f"{self._added} of {self._count} items were added")
        return self._buffer


class PackedList(Sequence[bytes]):
    """Reads what `pack_list` wrote, from bytes or a mapped file, without copying the whole.

    Raises:
        StoreError: the buffer does not hold a packed list.
    """

    def __init__(self, buffer: bytes | memoryview) -> None:
        self._view = memoryview(buffer).toreadonly().cast("B")
        if len(self._view) < _HEAD.size:
            raise StoreError("a packed list is shorter than its head")
        magic, self._count = _HEAD.unpack_from(self._view)
        self._body = _HEAD.size + 8 * (self._count + 1)
        if magic != MAGIC or len(self._view) < self._body:
            raise StoreError("a packed list does not begin as one")

    def __len__(self) -> int:
        return int(self._count)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]  # no slices
        if index < 0:
            index += self._count
        if not 0 <= index < self._count:
            raise IndexError(index)
        start, stop = struct.unpack_from("<QQ", self._view, _HEAD.size + 8 * index)
        return bytes(self._view[self._body + start : self._body + stop])

    def __iter__(self) -> Iterator[bytes]:
        return (self[i] for i in range(self._count))


class PackedSpan(Struct, frozen=True):
    """Bytes start <= i < end of a packed list that is somewhere else."""

    start: int
    end: int


class ItemSpan(Struct, frozen=True):
    """Where one item's offsets lie, and with them the item: for who reads a list in parts."""

    offsets: PackedSpan
    body: int

    def item(self, offsets: bytes) -> PackedSpan:
        """Where the item lies, by the bytes at `self.offsets`."""
        start, stop = struct.unpack("<QQ", offsets)
        return PackedSpan(self.body + start, self.body + stop)


def span_of(head: bytes, index: int) -> ItemSpan:
    """Find an item by the first HEAD_BYTES of a list.

    Raises:
        IndexError: there is no such item.
        StoreError: it is no packed list.
    """
    if len(head) < HEAD_BYTES or not head.startswith(MAGIC):
        raise StoreError("a packed list does not begin as one")
    _, count = _HEAD.unpack_from(head)
    if not 0 <= index < count:
        raise IndexError(index)
    at = HEAD_BYTES + 8 * index
    return ItemSpan(PackedSpan(at, at + 16), HEAD_BYTES + 8 * (count + 1))
