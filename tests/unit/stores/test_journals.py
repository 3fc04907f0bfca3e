"""Frames: what was appended is read, a torn tail ends the file, damage before it is an error."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import JournalDamagedError, NotFoundError, StoreAccessError, StoreError
from engine.stores import frames
from engine.stores.frames import HEAD_BYTES, MAGIC_BYTES, FrameReader, FrameWriter, Torn, pack_frame
from engine.stores.journals import JOURNAL_MAGIC, JournalReader, JournalWriter, run_holder
from engine.stores.leases import Lease
from tests.unit.stores.faulty import FaultyCalls, small_disk

MAGIC = b"TST1"

payloads_of = st.lists(st.binary(max_size=200), max_size=12)


def written(path: Path, payloads: list[bytes]) -> list[int]:
    with FrameWriter(str(path), MAGIC) as writer:
        return [writer.append(payload) for payload in payloads]


def read(path: Path, start: int = 0) -> tuple[list[tuple[int, bytes]], Torn | None]:
    with FrameReader(str(path), MAGIC) as reader:
        return list(reader.scan(start)), reader.torn


@given(payloads_of, st.integers(0, 12))
def test_what_was_appended_is_read_in_order_and_by_offset(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], split: int
) -> None:
    path = tmp_path_factory.mktemp("frames") / "file"
    with FrameWriter(str(path), MAGIC) as writer:
        offsets = [writer.append(payload) for payload in payloads[:split]]
        offsets += writer.append_many(payloads[split:])
        assert writer.end == path.stat().st_size
    found, torn = read(path)
    assert found == list(zip(offsets, payloads, strict=True))
    assert torn is None
    with FrameReader(str(path), MAGIC) as reader:
        assert [reader.read(offset) for offset in offsets] == payloads
        for n, offset in enumerate(offsets):
            assert [payload for _, payload in reader.scan(offset)] == payloads[n:]


@pytest.mark.parametrize("size", [0, 4088, 4089, (1 << 20) - 8, 1 << 20, 3 << 20])
def test_frames_of_any_size_are_read(tmp_path: Path, size: int) -> None:
    payloads = [b"before", os.urandom(size), b"after"]
    offsets = written(tmp_path / "f", payloads)
    assert read(tmp_path / "f")[0] == list(zip(offsets, payloads, strict=True))
    with FrameReader(str(tmp_path / "f"), MAGIC) as reader:
        assert reader.read(offsets[1]) == payloads[1]


def test_a_frame_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAME_MAX_BYTES", 10)
    with pytest.raises(StoreError, match="11 bytes"):
        pack_frame(b"x" * 11)


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=6), st.data())
def test_a_file_cut_anywhere_gives_the_frames_before_the_cut(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("frames") / "file"
    offsets = written(path, payloads)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    ends = [*offsets[1:], len(whole)]
    expected = [p for p, end in zip(payloads, ends, strict=True) if end <= cut]
    good = max([end for end in ends if end <= cut], default=MAGIC_BYTES)
    found, torn = read(path)
    assert [payload for _, payload in found] == expected
    assert torn == (Torn(good, cut - good) if cut > good else None)
    with FrameWriter(str(path), MAGIC) as writer:  # goes on where the sound frames end
        assert writer.torn == torn
        assert writer.append(b"next") == good
    assert [payload for _, payload in read(path)[0]] == [*expected, b"next"]
    assert read(path)[1] is None


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=60), min_size=2, max_size=6), st.data())
def test_a_changed_byte_is_never_read_as_sound(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("frames") / "file"
    offsets = written(path, payloads)
    changed = bytearray(path.read_bytes())
    at = data.draw(st.integers(MAGIC_BYTES, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    hit = max(n for n, offset in enumerate(offsets) if offset <= at)
    with FrameReader(str(path), MAGIC) as reader, pytest.raises(JournalDamagedError):
        reader.read(offsets[hit])
    if hit == len(payloads) - 1:
        found, torn = read(path)
        assert [payload for _, payload in found] == payloads[:-1]
        assert torn == Torn(offsets[-1], len(changed) - offsets[-1])
        return
    with pytest.raises(JournalDamagedError) as caught:
        read(path)
    assert caught.value.offset == offsets[hit]
    assert str(path) in caught.value.message
    with pytest.raises(JournalDamagedError):
        FrameWriter(str(path), MAGIC)
    assert path.read_bytes() == changed  # nothing was cut off


def test_a_tail_of_zeros_is_no_frame(tmp_path: Path) -> None:
    written(tmp_path / "f", [b"one"])
    end = (tmp_path / "f").stat().st_size
    os.truncate(tmp_path / "f", end + 4096)
    assert read(tmp_path / "f") == ([(4, b"one")], Torn(end, 4096))


@pytest.mark.slow
def test_a_tail_that_is_too_long_for_a_torn_one_is_damage(tmp_path: Path) -> None:
    written(tmp_path / "f", [b"one"])
    os.truncate(tmp_path / "f", 9 << 20)
    with pytest.raises(JournalDamagedError, match="bytes follow"):
        read(tmp_path / "f")


def test_a_reader_goes_on_where_it_stopped_while_the_file_grows(tmp_path: Path) -> None:
    with FrameWriter(str(tmp_path / "f"), MAGIC) as writer:
        with FrameReader(str(tmp_path / "f"), MAGIC) as reader:
            seen = []
            for n in range(20):
                writer.append_many([b"%d.%d" % (n, i) for i in range(n % 4)])
                seen += [payload for _, payload in reader.scan(reader.position)]
        assert seen == [b"%d.%d" % (n, i) for n in range(20) for i in range(n % 4)]


def test_a_frame_that_is_being_written_is_read_once_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    offsets = written(path, [b"one", b"two", b"three"])
    whole = path.read_bytes()
    path.write_bytes(whole[: offsets[1] + 5])
    fstat = os.fstat

    def finished(fd: int) -> os.stat_result:
        path.write_bytes(whole)  # by the writer, between the reader's two looks
        return fstat(fd)

    with FrameReader(str(path), MAGIC) as reader:
        monkeypatch.setattr(os, "fstat", finished)
        assert [payload for _, payload in reader.scan()] == [b"one", b"two", b"three"]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"#!/bin/sh\n")
    with pytest.raises(StoreError, match="begins with"):
        FrameReader(str(tmp_path / "f"), MAGIC)
    with pytest.raises(StoreError, match="begins with"):
        FrameWriter(str(tmp_path / "f"), MAGIC)
    (tmp_path / "f").write_bytes(b"#!")
    with pytest.raises(StoreError, match="does not begin"):
        FrameWriter(str(tmp_path / "f"), MAGIC)
    assert (tmp_path / "f").read_bytes() == b"#!"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing-here"):
        JournalReader(str(tmp_path / "nothing-here"))
    with pytest.raises(StoreAccessError):
        FrameWriter(str(tmp_path / "no" / "directory"), MAGIC)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    written(tmp_path / "f", [b"x"])
    (tmp_path / "link").symlink_to(tmp_path / "f")
    with pytest.raises(StoreAccessError):
        FrameReader(str(tmp_path / "link"), MAGIC)
    with pytest.raises(StoreAccessError):
        FrameWriter(str(tmp_path / "link"), MAGIC)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_an_append_that_is_refused_leaves_the_journal_whole(
    tmp_path: Path, durability: str
) -> None:
    with FrameWriter(str(tmp_path / "f"), MAGIC, durability=durability) as writer:
        writer.append(b"one")
        end = writer.end
        with FaultyCalls(0, errno.ENOSPC).active():
            with pytest.raises(StoreAccessError, match="append to"):
                writer.append(b"two")
            with pytest.raises(StoreAccessError):
                writer.append_many([b"three", b"four"])
        assert writer.end == end
        assert writer.append(b"five") == end
        writer.sync()
    assert [payload for _, payload in read(tmp_path / "f")[0]] == [b"one", b"five"]


def test_on_a_full_disk_a_frame_is_whole_or_not_there(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        payload = os.urandom(30_000)
        with FrameWriter(str(disk / "f"), MAGIC) as writer:

            def fill() -> None:
                while True:
                    writer.append(payload)

            with pytest.raises(StoreAccessError) as caught:
                fill()
            assert caught.value.need_bytes == len(payload) + HEAD_BYTES
            assert caught.value.free_bytes is not None
            found, torn = read(disk / "f")
            assert torn is None
            assert len(found) > 10
            assert all(p == payload for _, p in found)
            (disk / "room").touch()
            os.truncate(disk / "f", found[-1][0])
            writer._end = found[-1][0]
            assert writer.append(b"again") == found[-1][0]


# -- the journal of a run -------------------------------------------------------------------------


def test_a_journal_is_written_under_a_lease_only(tmp_path: Path) -> None:
    lock, path = str(tmp_path / "lock"), str(tmp_path / "journal")
    with Lease.acquire(lock, run="F/R", since_us=0) as lease, JournalWriter(path, lease) as writer:
        assert writer.append(b"one") == MAGIC_BYTES
        assert run_holder(lock) == lease.holder
        lease.release()
        assert run_holder(lock) is None
        with pytest.raises(StoreError, match="lease"):
            writer.append(b"two")
        with pytest.raises(StoreError, match="lease"):
            writer.append_many([b"three"])
    with JournalReader(path) as reader:
        assert list(reader.scan()) == [(MAGIC_BYTES, b"one")]
    assert (tmp_path / "journal").read_bytes()[:4] == JOURNAL_MAGIC


def test_a_driver_killed_at_any_append_leaves_whole_frames(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from engine.stores.journals import JournalWriter\n"
        "from engine.stores.leases import Lease\n"
        "with Lease.acquire(sys.argv[1] + '/lock', run='F/R', since_us=0) as lease:\n"
        "    writer = JournalWriter(sys.argv[1] + '/journal', lease)\n"
        "    n = 0\n"
        "    while True:\n"
        "        writer.append(b'%d' % n * 100)\n"
        "        n += 1\n"
        "        if n == 200: print('going', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
    ) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        assert run_holder(str(tmp_path / "lock")) is not None
        driver.kill()
    assert run_holder(str(tmp_path / "lock")) is None
    with JournalReader(str(tmp_path / "journal")) as reader:
        found = [payload for _, payload in reader.scan()]
    assert found == [b"%d" % n * 100 for n in range(len(found))]
    assert len(found) >= 200
