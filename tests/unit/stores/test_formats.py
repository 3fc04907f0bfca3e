"""The bytes of docs/FORMATS.md, compared with files that earlier versions wrote.

A difference here is a change of format: readers of old stores break unless the version rule of
FORMATS.md is followed. `python -m tests.unit.stores.test_formats` writes new golden files.
"""

import pickle
import re
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard

from engine.errors import Failure, StoreError
from engine.flow.graph import Transition
from engine.ids import Frame, TaskKey
from engine.scheduler.journal import (
    CancelRequestedRecord,
    ExecutorLostRecord,
    FailedRecord,
    RetryDueRecord,
    RunBeganRecord,
    RunDoneRecord,
    SucceededRecord,
    decode,
    encode,
)
from engine.stores.artifact_store import manifest_key
from engine.stores.cas import blob_key
from engine.stores.codecs import decompress
from engine.stores.directory import digest_of
from engine.stores.frames import FrameReader, FrameWriter
from engine.stores.journals import JOURNAL_MAGIC, JournalReader
from engine.stores.logs import LogBatch, LogQuery, LogReader, LogRecord, LogWriter
from engine.stores.manifest import Entry, FileIdentity, Manifest
from engine.stores.metadata.local import LocalMetadataSync
from engine.stores.packed import PackedList, pack_list
from engine.stores.serializers import deserialize, serialize

GOLDEN = Path(__file__).parent / "golden"
FORMATS = Path(__file__).parents[3] / "docs" / "FORMATS.md"

INLINE = Entry("json", "int", 2, digest_of([b"42"]), inline=b"42", preview="42")
BLOB = Entry(
    "numpy",
    "numpy.ndarray",
    800_000,
    "ab" * 32,
    digest="ab" * 32,
    meta={"dtype": "<f8", "shape": [100, 1000], "order": "C"},
    identity=FileIdentity(123, 800_000, 1_790_000_000_000_000_001, 1_790_000_000_000_000_002),
    preview="ndarray 100 x 1000 of float64",
)
COMPRESSED = Entry("json", "str", 24_002, "cd" * 32, digest="ef" * 32, codec="zstd")
MANIFEST = Manifest(
    flow="Flow",
    run_id="01J0000000000001",
    step="work",
    task_id="3.1",
    attempt=2,
    artifacts={"n": INLINE, "x": BLOB, "text": COMPRESSED},
    transition=Transition(("join",), 2),
    items=Entry("packed", "list", 60, "12" * 32, digest="12" * 32, meta={"count": 2}),
    caught=True,
)
KEY = TaskKey("work", (Frame("start", 3, 5), Frame("fork", 0, 2, 0, False)), visit=1)
RECORDS = (
    RunBeganRecord(
        1,
        "Flow",
        "01J0000000000001",
        MANIFEST.pack(),
        user="ada",
        host="h",
        tags=("a", "b"),
        origin_run_id="01J0000000000000",
        code={"target": "flow.py:Flow"},
        graph={"start": "start"},
        slots=4,
        on_failure="cancel",
    ),
    SucceededRecord(5, KEY, 2, 3, 4, MANIFEST.pack()),
    SucceededRecord(6, TaskKey("start"), 0, 3, 4, MANIFEST.pack(), reused=True),
    FailedRecord(7, KEY, 0, 3, 4, Failure("task-failed", "boom", "ValueError", log_tail=("a",))),
    RetryDueRecord(8, KEY, 1),
    CancelRequestedRecord(9, "Ctrl-C"),
    ExecutorLostRecord(10, "gone"),
    RunDoneRecord(11, "failed", "why", Failure("task-lost", "m"), KEY),
    RunDoneRecord(12, "succeeded"),
)
BATCHES = (
    LogBatch("work", "3.1", 2, "stdout", [(10, "first"), (12, "ünï \udc80")]),
    LogBatch("work", "3.1", 2, "stderr", [(11, "")]),
)
ITEMS = [b"", b"one", INLINE.pack()]
BUFFERS = [bytearray(b"\x01" * 4096), bytearray(b"\x02" * 5000)]


class Buffered:
    """Pickles as two buffers that lie beside the stream."""

    def __reduce_ex__(self, protocol: int) -> Any:
        return list, (tuple(pickle.PickleBuffer(buffer) for buffer in BUFFERS),)


def joined(value: object) -> bytes:
    return b"".join(serialize(value, artifact="x", step="s").parts)


def frames_file(folder: Path) -> bytes:
    path = folder / "journal"
    with FrameWriter(str(path), JOURNAL_MAGIC) as writer:
        writer.append_many([encode(record) for record in RECORDS])
    return path.read_bytes()


def log_file(folder: Path) -> bytes:
    writer = LogWriter(str(folder / "log"))
    writer.append(BATCHES)
    writer.close()
    return (folder / "log").read_bytes()


def schema(folder: Path) -> bytes:
    with LocalMetadataSync(folder / "metadata.db") as metadata:
        metadata.flows()
    connection = sqlite3.connect(folder / "metadata.db")
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL ORDER BY name")
    text = "\n".join(re.sub(r"\s+", " ", row[0]) + ";" for row in rows)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return f"PRAGMA user_version = {version};\n{text}\n".encode()


WRITERS: dict[str, Callable[[Path], bytes]] = {
    "journal": frames_file,
    "log": log_file,
    "manifest": lambda _: MANIFEST.pack(),
    "entry": lambda _: BLOB.pack(),
    "packed-list": lambda _: pack_list(ITEMS),
    "pickle-with-buffers": lambda _: joined(Buffered()),
    "json-value": lambda _: joined({"a": [1, 2.5, None, True, "ünï"], "b": {}}),
    "metadata.sql": schema,
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_has_not_changed(name: str, tmp_path: Path) -> None:
    assert WRITERS[name](tmp_path) == (GOLDEN / name).read_bytes()


def test_an_old_journal_is_read() -> None:
    with JournalReader(str(GOLDEN / "journal")) as reader:
        assert tuple(decode(payload) for _, payload in reader.scan()) == RECORDS
        assert reader.torn is None


def test_an_old_log_is_read() -> None:
    reader = LogReader(str(GOLDEN / "log"), LogQuery())
    records = reader.page(0).records
    reader.close()
    assert list(records) == [
        LogRecord(b.step, b.task_id, b.attempt, b.stream, at_us, text)
        for b in BATCHES
        for at_us, text in b.lines
    ]


def test_an_old_manifest_is_read() -> None:
    assert Manifest.unpack((GOLDEN / "manifest").read_bytes()) == MANIFEST
    assert Entry.unpack((GOLDEN / "entry").read_bytes()) == BLOB


def test_an_old_packed_list_is_read() -> None:
    assert list(PackedList((GOLDEN / "packed-list").read_bytes())) == ITEMS


def test_old_values_are_read() -> None:
    data = bytearray((GOLDEN / "pickle-with-buffers").read_bytes())
    back: Any = deserialize("pickle", memoryview(data), {"buffers": 2})
    assert [bytes(part) for part in back] == [bytes(buffer) for buffer in BUFFERS]
    data = bytearray((GOLDEN / "json-value").read_bytes())
    assert deserialize("json", memoryview(data), {}) == {
        "a": [1, 2.5, None, True, "ünï"],
        "b": {},
    }
    packed = (GOLDEN / "value.zst").read_bytes()
    assert decompress("zstd", packed, 30_000) == b"".join(b"%05d\n" % n for n in range(5000))


def test_fields_of_a_later_minor_version_are_ignored() -> None:
    wire = msgpack.unpackb(MANIFEST.pack())
    wire["new"] = {"anything": [1]}
    wire["artifacts"]["n"]["new"] = 1
    assert Manifest.unpack(msgpack.packb(wire)) == MANIFEST


@pytest.mark.parametrize("magic", [b"AFJ2", b"AFG1", b"\0\0\0\0"])
def test_a_journal_of_a_later_version_is_refused(tmp_path: Path, magic: bytes) -> None:
    (tmp_path / "journal").write_bytes(magic + (GOLDEN / "journal").read_bytes()[4:])
    with pytest.raises(StoreError, match="begins with"):
        FrameReader(str(tmp_path / "journal"), JOURNAL_MAGIC)


def test_keys_are_where_the_page_says() -> None:
    digest = digest_of([b"abc"])
    assert digest == "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
    assert blob_key(digest) == f"blobs/64/{digest}"
    assert manifest_key("F", "R", "s", "0.1") == "runs/F/R/s/0.1/manifest"


def test_the_page_names_every_field() -> None:
    page = FORMATS.read_text()
    wire = msgpack.unpackb(MANIFEST.pack())
    names = {*wire}.union(*(entry for entry in wire["artifacts"].values()))
    for record in RECORDS:
        fields = msgpack.unpackb(encode(record))
        names |= {*fields, fields["k"]}
    missing = {name for name in names if f"`{name}`" not in page}
    assert not missing
    (sql,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    for line in (GOLDEN / "metadata.sql").read_text().splitlines():
        assert line in re.sub(r"\s+", " ", sql).replace("; ", ";\n")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, write in WRITERS.items():
        with tempfile.TemporaryDirectory() as folder:
            (GOLDEN / name).write_bytes(write(Path(folder)))
    value = b"".join(b"%05d\n" % n for n in range(5000))
    (GOLDEN / "value.zst").write_bytes(zstandard.ZstdCompressor(level=1).compress(value))
