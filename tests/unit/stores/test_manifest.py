"""What is read of a manifest without reading it whole."""

from typing import Any

import msgpack
import pytest

from engine.errors import StoreError
from engine.stores.manifest import MANIFEST_MAX_BYTES, Entry, Manifest, digests_in, outline


def test_the_digests_of_a_manifest_are_those_of_its_entries_and_of_its_items() -> None:
    blob, items = "a" * 64, "b" * 64
    small = Entry("json", "builtins.int", 1, "0" * 64, inline=b"1")
    large = Entry("bytes", "builtins.bytes", 9_999, blob, digest=blob)
    packed = Entry("packed", "builtins.list", 9_999, items, digest=items)
    manifest = Manifest("F", "r", "s", "0", 0, {"x": small, "y": large}, items=packed)
    assert digests_in(manifest.pack()) == [blob, items]
    assert digests_in(Manifest("F", "r", "s", "0", 0, {"x": small}).pack()) == []
    with pytest.raises(StoreError, match="damaged"):
        digests_in(manifest.pack()[:-5])


def test_a_manifest_beyond_reason_is_refused_before_it_is_read() -> None:
    with pytest.raises(StoreError, match="67,108,865 bytes; 67,108,864 are the most"):
        outline(bytes(MANIFEST_MAX_BYTES + 1))


@pytest.mark.parametrize("read", [outline, digests_in])
def test_a_manifest_of_a_later_version_is_told_from_a_damaged_one(read: Any) -> None:
    later = msgpack.packb({"v": 2, "artifacts": 5, "next": "elsewhere"})
    with pytest.raises(StoreError, match="version 2; this aflow reads version 1"):
        read(later)


def test_a_manifest_with_text_that_is_no_utf8_is_damaged() -> None:
    entry = Entry("json", "builtins.int", 1, "0" * 64, inline=b"1", preview="one")
    manifest = Manifest("F", "r", "s", "task", 0, {"x": entry}).pack()
    for read, good, text in (
        (outline, manifest, b"task"),
        (digests_in, manifest, b"artifacts"),
        (Manifest.unpack, manifest, b"one"),
        (Entry.unpack, entry.pack(), b"one"),
    ):
        with pytest.raises(StoreError, match="damaged"):
            read(good.replace(text, b"\xff" * len(text)))
