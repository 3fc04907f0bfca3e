"""A step's values become entries of a manifest, and each comes back alone."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.errors import (
    BlobCorruptError,
    BlobNotFoundError,
    StoreError,
    UnstorableValueError,
)
from engine.flow.graph import Transition
from engine.stores.artifact_store import ArtifactStore, manifest_key
from engine.stores.artifacts import (
    INLINE_ITEM_MAX,
    INLINE_MANIFEST_MAX,
    INLINE_VALUE_MAX,
    is_same_value,
    item_bytes,
    load_entry,
    load_item,
    mapped_if_here,
    pack_items,
    save_values,
)
from engine.stores.cas import ContentAddressedStore
from engine.stores.directory import BlobDirectory
from engine.stores.layout import Layout
from engine.stores.local import LocalBlobStore
from engine.stores.manifest import Entry, Manifest
from engine.stores.memory import MemoryBlobStore
from engine.stores.packed import PackedList
from tests.unit.stores.conftest import blob_files


def save(value: object, directory: BlobDirectory) -> Entry:
    return save_values({"x": value}, directory, step="s")["x"]


def travelled(entry: Entry) -> Entry:
    """As a reader in another process gets it."""
    return Entry.unpack(entry.pack())


VALUES: dict[str, Any] = {
    "int": 5,
    "text": "lorem ipsum " * 2000,
    "raw": os.urandom(5000),
    "tuple": (1, "a"),
    "array": np.arange(100_000.0).reshape(100, 1000),
    "model": {"weights": np.arange(20_000), "name": "m"},
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back(layout: Layout, name: str) -> None:
    entry = save(VALUES[name], layout.blob_directory())
    back: Any = load_entry(travelled(entry), layout.blob_directory())
    np.testing.assert_equal(back, VALUES[name])


@given(st.dictionaries(st.text(min_size=1), st.integers() | st.text() | st.binary(), max_size=5))
def test_a_manifest_comes_back_with_every_value(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    root = tmp_path_factory.mktemp("blobs")
    (root / "tmp").mkdir()
    directory = BlobDirectory(str(root))
    manifest = Manifest(
        "F", "R", "s", "0.1", 2, save_values(values, directory, step="s"), Transition(("a",), 3)
    )
    back = Manifest.unpack(manifest.pack())
    assert back == manifest
    assert {k: load_entry(e, directory) for k, e in back.artifacts.items()} == values


def test_small_values_lie_inside_the_manifest(layout: Layout) -> None:
    directory = layout.blob_directory()
    assert save(b"x" * INLINE_VALUE_MAX, directory).inline is not None
    assert blob_files(layout) == []
    assert save(b"x" * (INLINE_VALUE_MAX + 1), directory).digest is not None
    assert len(blob_files(layout)) == 1


def test_a_manifest_holds_so_many_inline_bytes_and_no_more(layout: Layout) -> None:
    values = {f"v{n:02}": bytes([n]) * INLINE_VALUE_MAX for n in range(20)}
    entries = save_values(values, layout.blob_directory(), step="s")
    inline = [e.inline for e in entries.values() if e.inline is not None]
    assert sum(map(len, inline)) == INLINE_MANIFEST_MAX
    assert len(blob_files(layout)) == 20 - len(inline)
    assert {k: load_entry(e, layout.blob_directory()) for k, e in entries.items()} == values


def test_an_entry_tells_of_its_value_without_loading_it(directory: BlobDirectory) -> None:
    entry = save(np.zeros((100, 100)), directory)
    assert (entry.type, entry.size_bytes) == ("numpy.ndarray", 80_000)
    assert entry.preview == "ndarray 100 x 100 of float64"
    assert entry.sha == entry.digest
    assert entry.codec is None


def test_text_is_compressed_and_arrays_are_not(layout: Layout) -> None:
    directory = layout.blob_directory()
    text = save(" ".join(map(str, range(20_000))), directory)
    assert text.codec == "zstd"
    assert text.sha != text.digest
    (blob,) = blob_files(layout)
    assert blob.stat().st_size < text.size_bytes / 2
    assert save(np.zeros(100_000), directory).codec is None
    assert save({"w": np.zeros(100_000)}, directory).codec is None


def test_a_saved_array_is_mapped_and_private(layout: Layout) -> None:
    entry = save(np.arange(100_000), layout.blob_directory())
    one: Any = load_entry(entry, layout.blob_directory())
    one[0] = 77
    two: Any = load_entry(entry, layout.blob_directory())
    assert (one[0], two[0]) == (77, 0)
    assert not one.flags.owndata


def test_equal_values_are_told_without_loading(directory: BlobDirectory) -> None:
    array = np.arange(1000.0)
    assert is_same_value(save(array, directory), travelled(save(array.copy(), directory)))
    assert not is_same_value(save(array, directory), save(array + 1, directory))
    four_zeros = [np.zeros(1, "i4"), np.zeros(2, "i2"), np.zeros((1, 2), "i2"), b"\0\0\0\0"]
    entries = [save(value, directory) for value in four_zeros]
    assert len({entry.sha for entry in entries}) == 1
    for i, a in enumerate(entries):
        for j, b in enumerate(entries):
            assert is_same_value(a, b) == (i == j)


def test_an_unstorable_value_is_named(directory: BlobDirectory) -> None:
    with pytest.raises(UnstorableValueError, match=r"'bad' of step 's'.*self\.bad\[0\]"):
        save_values({"good": 1, "bad": [iter([]), (n for n in ())][1:]}, directory, step="s")


@pytest.mark.parametrize("name", [n for n in VALUES if n not in ("int", "tuple")])
def test_damage_is_found_before_the_value_is_made(
    layout: Layout, damage: Callable[[Path], None], name: str
) -> None:
    entry = travelled(save(VALUES[name], layout.blob_directory()))
    (blob,) = blob_files(layout)
    damage(blob)
    with pytest.raises((BlobCorruptError, BlobNotFoundError)):
        load_entry(entry, layout.blob_directory())


def test_damaged_inline_bytes_are_found(directory: BlobDirectory) -> None:
    entry = save(12345, directory)
    with pytest.raises(BlobCorruptError):
        load_entry(replace(entry, inline=b"12346"), directory)
    with pytest.raises(StoreError, match="neither"):
        load_entry(replace(entry, inline=None), directory)


def test_a_pickle_is_refused_where_none_is_allowed(directory: BlobDirectory) -> None:
    entry = save((1, 2), directory)
    with pytest.raises(StoreError, match="can run code"):
        load_entry(entry, directory, allow_pickle=False)
    assert load_entry(save([1, 2], directory), directory, allow_pickle=False) == [1, 2]


# -- foreach items --------------------------------------------------------------------------------

ITEMS: list[list[Any]] = [
    [1],
    list(range(2000)),
    [2**70, -(2**63), 2**63, True, None, "x", 1.5],
    ["a" * 500, b"b" * 5000, (1, 2), {"k": [1]}],
    [np.arange(10), np.arange(50_000), "between", np.arange(50_000)],
]


@pytest.mark.parametrize("items", ITEMS, ids=range(len(ITEMS)))
def test_each_item_comes_back_alone(layout: Layout, items: list[Any]) -> None:
    entry = travelled(pack_items(items, layout.blob_directory(), step="s"))
    assert entry.meta["count"] == len(items)
    directory = layout.blob_directory()
    for index, item in enumerate(items):
        back = load_item(entry, index, directory)
        assert type(back) is type(item)
        np.testing.assert_equal(back, item)
        again = load_entry(Entry.unpack(item_bytes(entry, index, directory)), directory)
        np.testing.assert_equal(again, item)
    with pytest.raises(IndexError):
        load_item(entry, len(items), directory)


def test_the_short_way_for_ints_makes_the_same_entries(directory: BlobDirectory) -> None:
    for number in (0, -1, 12345, 2**62, -(2**63)):
        entry = pack_items([number], directory, step="s")
        assert Entry.unpack(item_bytes(entry, 0, directory)) == save(number, directory)


def test_large_items_are_blobs_of_their_own(layout: Layout) -> None:
    big = np.arange(INLINE_ITEM_MAX)
    entry = pack_items([1, big, big.copy()], layout.blob_directory(), step="s")
    assert entry.inline is not None or len(blob_files(layout)) == 2
    assert max(p.stat().st_size for p in blob_files(layout)) == big.nbytes


def test_a_list_of_items_is_not_loaded_as_a_value(directory: BlobDirectory) -> None:
    with pytest.raises(StoreError, match="item by item"):
        load_entry(pack_items([1, 2], directory, step="s"), directory)


def test_an_unstorable_item_is_named_by_its_index(directory: BlobDirectory) -> None:
    with pytest.raises(UnstorableValueError, match=r"self\.jobs\[1\]"):
        pack_items([1, (n for n in ())], directory, step="s", artifact="jobs")


def test_damage_to_the_list_is_found(layout: Layout, damage: Callable[[Path], None]) -> None:
    entry = pack_items(list(range(5000)), layout.blob_directory(), step="s")
    damage(blob_files(layout)[0])
    with pytest.raises((BlobCorruptError, BlobNotFoundError)):
        load_item(travelled(entry), 3, layout.blob_directory())


def test_one_of_a_hundred_thousand_items_is_read_alone(directory: BlobDirectory) -> None:
    entry = pack_items(range(100_000), directory, step="s")
    assert load_item(entry, 99_999, directory) == 99_999


# -- over any store -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VALUES)
async def test_values_are_loaded_from_any_store(name: str, layout: Layout) -> None:
    directory = layout.blob_directory()
    entry = travelled(save(VALUES[name], directory))
    remote = MemoryBlobStore()
    if entry.digest:
        await ContentAddressedStore(remote).put([directory.read(entry.digest)])
    for blobs in (remote, LocalBlobStore(layout.root)):
        back: Any = await ArtifactStore(blobs).load(entry)
        np.testing.assert_equal(back, VALUES[name])
        if name == "array":
            assert back.flags.writeable


async def test_of_all_attempts_one_commits() -> None:
    store = ArtifactStore(MemoryBlobStore())
    key = manifest_key("F", "R", "s", "0.1")
    assert await store.committed(key) is None
    async with asyncio.TaskGroup() as group:
        commits = [
            group.create_task(store.commit(key, Manifest("F", "R", "s", "0.1", attempt)))
            for attempt in range(32)
        ]
    (winner,) = [n for n, commit in enumerate(commits) if commit.result()]
    committed = await store.committed(key)
    assert committed == Manifest("F", "R", "s", "0.1", winner)


async def test_a_manifest_of_a_later_version_is_refused() -> None:
    blobs = MemoryBlobStore()
    await blobs.put("m", [msgpack.packb({"v": 2})])
    with pytest.raises(StoreError, match="version 2"):
        await ArtifactStore(blobs).committed("m")
    await blobs.put("m", [b"\xc1 no msgpack"])
    with pytest.raises(StoreError, match="damaged"):
        await ArtifactStore(blobs).committed("m")


def test_a_list_of_items_is_mapped_where_its_blob_lies_unhurt_and_never_fetched(
    tmp_path: Path,
) -> None:
    (tmp_path / "tmp").mkdir()
    fetched: list[str] = []
    directory = BlobDirectory(str(tmp_path), fetch=fetched.append)
    entry = pack_items(list(range(1_000)), directory, step="start")
    assert entry.digest is not None

    view = mapped_if_here(directory, entry)
    assert view is not None
    assert load_entry(Entry.unpack(PackedList(view)[7]), directory) == 7

    path = Path(directory.path(entry.digest))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert mapped_if_here(directory, entry) is None
    path.unlink()
    assert mapped_if_here(directory, entry) is None
    assert mapped_if_here(directory, replace(entry, digest=None, inline=b"")) is None
    assert fetched == []
