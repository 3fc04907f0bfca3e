"""R-22: what another version wrote is read, or refused with a hint; nothing of it is touched.

Only version 1 of each format exists, so an older one is made here: without what was added since,
and a database that lacks a column. tests/unit/stores/golden holds the bytes of version 1.
"""

import signal
import sqlite3
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgpack
import pytest

from engine.errors import JobRejectedError
from engine.stores.frames import HEAD_BYTES
from engine.stores.taskspec import SPEC_VERSION, TaskSpec
from tests.cli.conftest import Call, aflow, variables  # noqa: F401  # a fixture, and what it needs
from tests.unit.client.stored import succeeded

Change = Callable[[Path], None]
Payload = dict[str, object]


def tree(root: Path) -> dict[str, bytes]:
    """Every file but those that SQLite makes for a reader."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def rewritten(path: Path, change: Callable[[int, Payload], Payload]) -> None:
    """Change the records of a journal, and make sound frames of them."""
    data, at, found = path.read_bytes(), 4, []
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        payload = msgpack.unpackb(data[at + HEAD_BYTES : at + HEAD_BYTES + length])
        found.append(msgpack.packb(change(len(found), payload)))
        at += HEAD_BYTES + length
    frames = []
    for payload in found:
        head = struct.pack("<I", len(payload))
        frames += [head, struct.pack("<I", zlib.crc32(payload, zlib.crc32(head))), payload]
    path.write_bytes(data[:4] + b"".join(frames))


def later_datastore(root: Path) -> None:
    (root / "format").write_text("aflow datastore 2\n")


def later_journal(root: Path) -> None:
    path = root / "runs/Fan/R1/journal"
    path.write_bytes(b"AFJ2" + path.read_bytes()[4:])


def later_log(root: Path) -> None:
    path = root / "runs/Fan/R1/log"
    path.write_bytes(b"AFG2" + path.read_bytes()[4:])


def later_record(root: Path) -> None:
    rewritten(root / "runs/Fan/R1/journal", lambda _, record: {**record, "v": 2})


def unknown_record(root: Path) -> None:
    def change(number: int, record: Payload) -> Payload:
        return {**record, "k": "task-moved"} if number == 2 else record

    rewritten(root / "runs/Fan/R1/journal", change)


def later_manifest(root: Path) -> None:
    def change(_: int, record: Payload) -> Payload:
        if not isinstance(packed := record.get("m"), bytes):
            return record
        return {**record, "m": msgpack.packb({**msgpack.unpackb(packed), "v": 2})}

    rewritten(root / "runs/Fan/R1/journal", change)


def later_database(root: Path) -> None:
    with closing(sqlite3.connect(root / "metadata.db")) as connection:
        connection.execute("PRAGMA user_version = 2")


LATER: dict[str, tuple[Change, tuple[str, ...], int]] = {
    "datastore": (later_datastore, ("list",), 3),
    "datastore, gc": (later_datastore, ("gc", "--yes", "--older-than", "0s"), 3),
    "datastore, fsck": (later_datastore, ("fsck", "--reindex"), 3),
    "journal": (later_journal, ("dump", "R1/work"), 6),
    "journal, tasks": (later_journal, ("dump", "R1/end/0/total"), 6),
    "record": (later_record, ("dump", "R1/end/0/total"), 6),
    "kind of record": (unknown_record, ("resume", "flow.py", "R1"), 6),
    "manifest": (later_manifest, ("dump", "R1/end/0/total"), 6),
    "log": (later_log, ("logs", "R1"), 6),
    "database": (later_database, ("list",), 6),
    "database, reindex": (later_database, ("fsck", "--reindex"), 6),
}
FLOW = """
from engine import FlowSpec, step


class Fan(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass
"""


@pytest.mark.parametrize("what", LATER)
def test_r22_what_a_later_version_wrote_is_refused_with_a_hint_and_not_touched(
    aflow: Call,  # noqa: F811  # the fixture
    datastore: Path,
    what: str,
) -> None:
    change, words, code = LATER[what]
    succeeded(datastore, "R1")
    change(datastore)
    Path("flow.py").write_text(FLOW)
    before = tree(datastore)

    done = aflow(*words)

    assert done.code == code, done.err
    assert "hint: use the aflow that " in done.err
    assert "or a later one" in done.err
    assert tree(datastore) == before


@pytest.mark.parametrize("change", [later_journal, later_record, later_manifest, later_log])
def test_r22_fsck_names_what_a_later_version_wrote(
    aflow: Call,  # noqa: F811  # the fixture
    datastore: Path,
    change: Change,
) -> None:
    succeeded(datastore, "R1")
    succeeded(datastore, "R2")
    change(datastore)
    before = tree(datastore)
    done = aflow("fsck")
    assert done.code == 6
    assert all(line.startswith("damaged  Fan/R1") for line in done.lines[:-1])
    assert "version" in done.out or "begins with" in done.out
    assert tree(datastore) == before


def test_r22_blobs_that_a_later_version_may_need_are_not_removed(
    aflow: Call,  # noqa: F811  # the fixture
    datastore: Path,
) -> None:
    succeeded(datastore, "R1", values=[{"x": bytes([n]) * 5000} for n in range(3)])
    later_manifest(datastore)
    before = tree(datastore)
    done = aflow("gc", "--yes", "--keep-last", "1")
    assert done.code == 6
    assert "cannot be read, so what it needs is not known" in done.err
    assert tree(datastore) == before


def test_r22_a_run_that_an_earlier_version_ended_is_read_and_sound(
    aflow: Call,  # noqa: F811  # the fixture
    datastore: Path,
) -> None:
    succeeded(datastore, "R1")
    added_since = {"seal", "rerun"}
    with_it = (datastore / "runs/Fan/R1/journal").read_bytes()
    rewritten(
        datastore / "runs/Fan/R1/journal",
        lambda _, record: {k: v for k, v in record.items() if k not in added_since},
    )
    assert (datastore / "runs/Fan/R1/journal").read_bytes() != with_it
    assert aflow("fsck", "--read-data").lines == ["1 runs checked: all is well"]
    assert aflow("dump", "R1/end/0/total").out == "6\n"


def test_r22_a_field_that_a_later_version_added_is_passed_over(
    aflow: Call,  # noqa: F811  # the fixture
    datastore: Path,
) -> None:
    succeeded(datastore, "R1")
    rewritten(
        datastore / "runs/Fan/R1/journal",
        lambda _, record: {k: v for k, v in {**record, "new": 1}.items() if k != "seal"},
    )
    assert aflow("fsck", "--reindex").code == 0
    assert aflow("dump", "R1/end/0/total").out == "6\n"


def test_r22_a_worker_of_another_version_says_so() -> None:
    spec = TaskSpec("F", "R", "s", "0", 0, "/store")
    wire = {**msgpack.unpackb(spec.pack()), "v": SPEC_VERSION + 1}
    with pytest.raises(JobRejectedError, match="version 2; this worker reads 1") as caught:
        TaskSpec.unpack(msgpack.packb(wire))
    assert "the same aflow" in (caught.value.hint or "")


MIGRATION = """
import sys
from engine import crashpoints
from engine.stores.metadata import schema
from engine.stores.metadata.base import RunRecord
from engine.stores.metadata.local import LocalMetadataSync

schema._UPGRADES = (
    *schema._UPGRADES,
    "ALTER TABLE runs ADD COLUMN cost REAL; CREATE TABLE costs (run_id TEXT); "
    "UPDATE runs SET cost = 1.5",
)
schema.VERSION = 2
if sys.argv[2] != "none":
    crashpoints.POINTS[sys.argv[2]].arm(1)
with LocalMetadataSync(sys.argv[1]) as metadata:
    print([run.run_id for run in metadata.runs()])
"""


def migrate(path: Path, point: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", MIGRATION, str(path), point],
        env=variables(path.parent),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "point", ["metadata.before-begin", "metadata.before-commit", "metadata.after-commit"]
)
def test_r22_a_migration_that_is_killed_is_done_again_whole(
    aflow: Call,  # noqa: F811  # the fixture
    datastore: Path,
    point: str,
) -> None:
    succeeded(datastore, "R1")
    path = datastore / "metadata.db"

    assert migrate(path, point).returncode == -signal.SIGKILL

    is_done = point == "metadata.after-commit"
    listed = aflow("list")
    assert listed.code == (6 if is_done else 0), "the old version reads what is not migrated"
    done = migrate(path, "none")
    assert done.stdout == "['R1']\n", done.stderr
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT cost FROM runs").fetchall() == [(1.5,)]
    assert "version 2; this aflow reads version 1" in aflow("list").err
