"""fsck lists exactly the blobs that are missing or damaged, and runs nothing that it reads."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from engine.stores.artifacts import INLINE_ITEM_MAX, pack_items, save_values
from engine.stores.directory import BlobDirectory, identity_of
from engine.stores.fsck import BlobCheck, Damage, Soundness
from engine.stores.layout import Layout
from engine.stores.manifest import Entry, Manifest
from tests.unit.stores.conftest import blob_files


def manifest(step: str, entries: dict[str, Entry], items: Entry | None = None) -> Manifest:
    return Manifest("F", "R", step, "0", 0, entries, items=items)


@pytest.fixture
def manifests(directory: BlobDirectory) -> list[Manifest]:
    """A run with inline, plain, compressed, carried and packed values: 8 blobs."""
    first = save_values(
        {
            "small": 1,
            "array": np.arange(50_000),
            "text": " ".join(map(str, range(5000))),
            "model": {"w": np.ones(9000)},
            "raw": os.urandom(3000),
        },
        directory,
        step="start",
    )
    big = [np.full(INLINE_ITEM_MAX, n) for n in range(2)]
    items = pack_items([*range(500), *big], directory, step="start")
    second = {**first, **save_values({"more": (1,) * 5000}, directory, step="end")}
    return [manifest("start", first, items), manifest("end", second)]


def found(manifests: list[Manifest], layout: Layout, *, read_data: bool) -> list[Damage]:
    check = BlobCheck(layout.blob_directory(), read_data=read_data)
    return [damage for manifest in manifests for damage in check.damages(manifest, "journal")]


@pytest.mark.parametrize("read_data", [False, True])
def test_a_sound_store_has_no_damage(
    layout: Layout, manifests: list[Manifest], read_data: bool
) -> None:
    assert len(blob_files(layout)) == 8
    assert found(manifests, layout, read_data=read_data) == []


@pytest.mark.parametrize("read_data", [False, True])
def test_every_damaged_blob_is_listed_and_no_other(
    layout: Layout, manifests: list[Manifest], damage: Callable[[Path], None], read_data: bool
) -> None:
    for blob in blob_files(layout):
        kept = blob.read_bytes()
        damage(blob)
        kind = "damaged" if blob.exists() else "missing"
        (problem,) = found(manifests, layout, read_data=read_data)
        assert (problem.kind, problem.digest) == (kind, blob.name)
        assert problem.used_by.startswith("F/R/")
        assert problem.detail
        blob.write_bytes(kept)


def test_all_damage_is_listed_at_once(layout: Layout, manifests: list[Manifest]) -> None:
    used = {
        entry.digest: f"F/R/start/0/{name}"
        for name, entry in manifests[0].artifacts.items()
        if entry.digest
    }
    for digest in used:
        (layout.blobs / digest[:2] / digest).unlink()
    problems = found(manifests, layout, read_data=False)
    assert {p.digest: p.used_by for p in problems} == used


def test_a_bit_that_rots_under_the_file_system_is_found_by_reading(
    layout: Layout, manifests: list[Manifest]
) -> None:
    blob = max(blob_files(layout), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[100] ^= 1
    blob.write_bytes(data)
    # The disk changes bytes without a trace in `stat`: the manifests hold the new identity.
    fd = os.open(blob, os.O_RDONLY)
    identity = identity_of(fd)
    os.close(fd)

    def rotten(entry: Entry) -> Entry:
        return replace(entry, identity=identity) if entry.digest == blob.name else entry

    changed = [
        replace(m, artifacts={k: rotten(e) for k, e in m.artifacts.items()}) for m in manifests
    ]
    if any(e.digest == blob.name for m in changed for e in m.artifacts.values()):
        assert found(changed, layout, read_data=False) == []
    assert [p.digest for p in found(changed, layout, read_data=True)] == [blob.name]


def test_damage_inside_a_manifest_is_listed(layout: Layout, manifests: list[Manifest]) -> None:
    start = manifests[0]
    broken = replace(start.artifacts["small"], inline=b"2")
    changed = replace(start, artifacts={"small": broken})
    (problem,) = found([changed], layout, read_data=False)
    assert (problem.kind, problem.used_by, problem.digest) == ("damaged", "F/R/start/0/small", "")


def test_a_list_that_is_none_is_listed(directory: BlobDirectory, layout: Layout) -> None:
    entry = save_values({"x": os.urandom(5000)}, directory, step="s")["x"]
    fake = replace(entry, serializer="packed")
    (problem,) = found([manifest("s", {}, fake)], layout, read_data=False)
    assert problem.kind == "damaged"
    wrong = replace(entry, digest="../../etc/passwd")
    (problem,) = found([manifest("s", {"x": wrong})], layout, read_data=False)
    assert problem.kind == "damaged"


def test_a_list_that_is_gone_hides_its_items(layout: Layout, manifests: list[Manifest]) -> None:
    for blob in blob_files(layout):
        blob.unlink()
    assert (
        len(found(manifests, layout, read_data=False)) == 6
    )  # the large items are named in the list, which is gone, too


def test_a_manifest_is_sound_if_each_of_its_blobs_is(
    layout: Layout, manifests: list[Manifest], damage: Callable[[Path], None]
) -> None:
    start = manifests[0]
    assert Soundness(layout.blob_directory()).of(start)
    for blob in blob_files(layout):
        kept = blob.read_bytes()
        damage(blob)
        sound = Soundness(layout.blob_directory())
        needs = blob.name in {d.digest for d in found([start], layout, read_data=False)}
        assert sound.of(start) is not needs
        assert sound.of(start) is not needs, "a second look says the same"
        blob.write_bytes(kept)


class Canary:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("size", [0, 10_000])
def test_s04_nothing_that_is_read_is_run(
    directory: BlobDirectory, tmp_path: Path, size: int
) -> None:
    sung = tmp_path / "sung"
    value = [Canary(str(sung)), b"x" * size, np.zeros(size)]
    entries = save_values({"x": value}, directory, step="s")
    items = pack_items([value, value], directory, step="s")
    made = manifest("s", entries, items)
    back = Manifest.unpack(made.pack())
    assert back.artifacts["x"].serializer == "pickle"
    assert back.artifacts["x"].preview
    assert list(BlobCheck(directory, read_data=True).damages(back, "journal")) == []
    assert Soundness(directory).of(back)
    assert not sung.exists()
    pickle.loads(pickle.dumps(Canary(str(sung))))
    assert sung.exists()
