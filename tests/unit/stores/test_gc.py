"""A collection removes what nobody needs, and nothing that anybody may need."""

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.errors import RunHeldError
from engine.stores.artifacts import INLINE_ITEM_MAX
from engine.stores.gc import BATCH, Collected, RunName, collect, delete_run, digests_of
from engine.stores.layout import Layout
from engine.stores.leases import Lease
from tests.unit.stores.conftest import blob_files
from tests.unit.stores.written import (
    HOUR_US,
    WrittenRun,
    big,
    collected,
    digests,
    ended,
    payload_is_manifest,
    request,
    stored,
)


def put(layout: Layout, value: bytes) -> str:
    return layout.blob_directory().write([value])[0]


def test_blobs_that_no_run_refers_to_are_removed_and_no_others(layout: Layout) -> None:
    run = WrittenRun(layout, "R1")
    large = [bytes([n]) * (INLINE_ITEM_MAX + 1) for n in range(2)]
    entries = run.write({"small": 1, "x": big(1), "y": big(2)})
    items = run.write_items([*range(500), *large])
    run.commit(entries, items)
    run.end()
    needed = stored(layout)
    assert len(needed) == 5, "two values, two items, the list"
    orphan = put(layout, big(9))

    done = collected(layout)

    assert stored(layout) == needed
    assert orphan not in needed
    assert done == Collected(blobs=1, blob_bytes=3000, alive=[])
    assert {digest.hex() for digest in digests_of(layout, run.name, payload_is_manifest)} == needed


def test_a_young_blob_may_belong_to_somebody(layout: Layout) -> None:
    digest = put(layout, big(1))
    at_us = os.stat(layout.blob_directory().path(digest)).st_mtime_ns // 1000
    young = replace(request(grace_us=HOUR_US), now_us=at_us + HOUR_US)

    assert collect(layout, young).blobs == 0
    assert stored(layout) == {digest}
    assert collect(layout, replace(young, now_us=young.now_us + 1)).blobs == 1
    assert stored(layout) == set()


def test_a_run_is_deleted_with_the_blobs_that_it_alone_refers_to(layout: Layout) -> None:
    first = ended(layout, "R1", mine=big(1), ours=big(2))
    second = ended(layout, "R2", ours=big(2), theirs=big(3))
    orphan = put(layout, big(9))
    kept = {digest.hex() for digest in digests_of(layout, second, payload_is_manifest)}

    done = collect(layout, replace(request(first), grace_us=2**60))

    assert stored(layout) == kept | {orphan}, "the grace holds for what it did not refer to"
    assert (done.runs, done.blobs, done.blob_bytes) == ([first], 1, 3000)
    assert done.record_bytes > 0
    assert layout.run_ids("F") == ["R2"]
    assert collected(layout, second).blobs == 3
    assert (stored(layout), layout.flows()) == (set(), [])


def test_a_dry_run_says_what_would_go_and_removes_nothing(layout: Layout) -> None:
    first = ended(layout, "R1", mine=big(1), ours=big(2))
    ended(layout, "R2", ours=big(2))
    put(layout, big(9))
    before = sorted(layout.root.rglob("*"))

    said = collect(layout, request(first, is_dry_run=True))

    assert sorted(layout.root.rglob("*")) == before
    assert said == collected(layout, first)
    assert said.blobs == 2


def test_no_blob_is_removed_while_a_run_is_alive(layout: Layout) -> None:
    first = ended(layout, "R1", x=big(1))
    run = WrittenRun(layout, "R2")
    fresh = run.write({"y": big(2)})
    found = run.write({"x": big(1)})
    before = stored(layout)

    done = collected(layout, first)

    assert stored(layout) == before
    assert [alive.run for alive in done.alive] == [run.name]
    assert (done.is_complete, done.blobs, done.runs) == (False, 0, [first])
    run.commit({**fresh, **found})
    run.end()
    assert collected(layout).is_complete
    assert stored(layout) == digests({**fresh, **found}) == before


def test_a_run_that_is_alive_is_not_deleted_and_nothing_else_is(layout: Layout) -> None:
    first = ended(layout, "R1", x=big(1))
    run = WrittenRun(layout, "R2")

    with pytest.raises(RunHeldError, match="run F/R2 held by"):
        collected(layout, first, run.name)
    with pytest.raises(RunHeldError):
        delete_run(layout, run.name)

    run.end()
    assert layout.run_ids("F") == ["R1", "R2"]


def test_what_a_run_left_that_was_killed_before_its_commit_is_removed(layout: Layout) -> None:
    run = WrittenRun(layout, "R1")
    run.write({"x": big(1)})
    (layout.blobs / "tmp" / "123-abc").write_bytes(b"half a blob")
    run.end()

    done = collected(layout)

    assert (done.blobs, done.blob_bytes) == (2, 3011)
    assert blob_files(layout) == list((layout.blobs / "tmp").iterdir()) == []


@pytest.mark.parametrize("is_over", [False, True], ids=["alive", "ended"])
def test_a_run_that_begins_in_the_course_of_it_ends_a_collection(
    layout: Layout, is_over: bool
) -> None:
    before = {put(layout, b"%d" % n * 2000) for n in range(BATCH + 20)}
    runs: list[WrittenRun] = []

    def begin() -> None:
        """Let a run find equal bytes in a blob that would be next."""
        if not runs:
            runs.append(WrittenRun(layout, "R1"))
            left = min(stored(layout) & before)
            found = Path(layout.blob_directory().path(left)).read_bytes()
            runs[0].commit(runs[0].write({"x": found}))
            if is_over:
                runs[0].end()

    done = collect(layout, replace(request(), between_batches=begin))

    assert (done.blobs, done.began) == (BATCH, RunName("F", "R1"))
    assert not done.is_complete
    runs[0].end()
    needed = {digest.hex() for digest in digests_of(layout, runs[0].name, payload_is_manifest)}
    assert len(needed) == 1
    assert needed <= before & stored(layout)
    assert collected(layout).is_complete
    assert stored(layout) == needed


def test_a_run_that_begins_while_journals_are_read_loses_nothing(layout: Layout) -> None:
    ended(layout, "R1", x=big(1))
    orphan = put(layout, big(2))
    runs: list[WrittenRun] = []

    def read(payload: bytes) -> list[bytes]:
        if not runs:
            runs.append(WrittenRun(layout, "R2"))
            runs[0].commit(runs[0].write({"x": big(2)}))
            runs[0].end()
        return [payload]

    done = collect(layout, replace(request(), manifests_in=read))

    assert (done.blobs, done.began) == (0, RunName("F", "R2"))
    assert orphan in stored(layout)


def test_a_journal_that_cannot_be_read_keeps_every_blob(layout: Layout) -> None:
    damaged = ended(layout, "R1", x=big(1))
    ended(layout, "R2", y=big(2))
    path = layout.journal("F", "R1")
    path.write_bytes(b"nonsense")
    before = stored(layout)

    done = collected(layout)

    assert stored(layout) == before
    assert (done.is_complete, list(done.unreadable)) == (False, ["F/R1"])
    assert collected(layout, damaged).is_complete, "a damaged run can be deleted"
    assert len(stored(layout)) == 1


def test_a_list_of_items_that_cannot_be_read_keeps_every_blob(layout: Layout) -> None:
    run = WrittenRun(layout, "R1")
    items = run.write_items(list(range(500)))
    run.commit({}, items)
    run.end()
    put(layout, big(1))
    assert items.digest is not None
    os.unlink(layout.blob_directory().path(items.digest))

    done = collected(layout)

    assert (done.blobs, list(done.unreadable)) == (0, ["F/R1"])
    assert len(stored(layout)) == 1


def test_a_run_without_a_journal_refers_to_nothing(layout: Layout) -> None:
    layout.create_run("F", "R1")
    Lease.acquire(str(layout.lock("F", "R1")), run="F/R1", since_us=0).release()
    put(layout, big(1))
    assert collected(layout).blobs == 1
    assert layout.run_ids("F") == ["R1"]


def test_the_remains_of_a_deletion_that_was_killed_are_removed(layout: Layout) -> None:
    run = ended(layout, "R1", x=big(1))
    ended(layout, "R2")
    os.rename(layout.run("F", "R1"), layout.root / "runs" / "F" / ".deleted-0123")

    done = collected(layout, run)

    assert os.listdir(layout.root / "runs" / "F") == ["R2"]
    assert (done.runs, done.blobs) == ([run], 1), "deleted once more, it is gone all the same"


def test_what_is_no_blob_is_left_alone(layout: Layout) -> None:
    (layout.blobs / "ab").mkdir()
    note = layout.blobs / "ab" / "README"
    note.write_text("mine")
    assert collected(layout).blobs == 0
    assert note.exists()
