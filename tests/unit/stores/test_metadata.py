"""The local metadata database: many processes at once, versions, faults, and making it again."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from msgspec.structs import replace

from engine.errors import StoreAccessError, StoreError, StoreUnavailableError, UsageError
from engine.stores.journals import JournalWriter
from engine.stores.layout import Layout
from engine.stores.leases import Lease
from engine.stores.metadata import schema
from engine.stores.metadata.base import Fact, Rebuilt, RunEnd, RunRecord, TaskRecord
from engine.stores.metadata.local import LocalMetadata, LocalMetadataSync
from engine.stores.metadata.rebuild import known_runs, records_of, reindex
from tests.unit.stores.faulty import small_disk


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[LocalMetadataSync]:
    with LocalMetadataSync(tmp_path / "metadata.db") as metadata:
        yield metadata


def run(run_id: str = "R", **facts: object) -> RunRecord:
    return replace(RunRecord("F", run_id, "running", 1), **facts)  # type: ignore[arg-type]


def tasks(run_id: str, count: int) -> list[TaskRecord]:
    return [TaskRecord("F", run_id, "work", str(n), n, 0, "succeeded") for n in range(count)]


WRITER = """
import sys, threading
from engine.stores.metadata.base import Fact, Rebuilt, RunEnd, RunRecord, TaskRecord
from engine.stores.metadata.local import LocalMetadataSync

def one_run(run_id):
    with LocalMetadataSync(sys.argv[1]) as metadata:
        metadata.put_runs([RunRecord("F", run_id, "running", 1)])
        for batch in range(4):
            metadata.put_tasks([
                TaskRecord("F", run_id, "work", str(n), n, 0, "succeeded")
                for n in range(batch * 10, batch * 10 + 10)
            ])
            assert metadata.run("F", run_id).status == "running"
        metadata.change_tags("F", run_id, add=["t"], remove=())
        metadata.put_runs([RunRecord("F", run_id, "succeeded", 1, 2)])

failures = []
def guarded(run_id):
    try:
        one_run(run_id)
    except BaseException as error:
        failures.append(f"{type(error).__name__}: {error}")

sys.stdin.readline()
threads = [threading.Thread(target=guarded, args=(f"{sys.argv[2]}x{n}",)) for n in range(25)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("\\n".join(failures))
sys.exit(bool(failures))
"""


def test_a_hundred_runs_of_four_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        output, _ = writer.communicate()
        assert (writer.returncode, output) == (0, "\n")
    with LocalMetadataSync(path) as metadata:
        runs = list(metadata.runs("F", status="succeeded", tags=["t"]))
        assert len({r.run_id for r in runs}) == 100
        for record in runs:
            assert len(list(metadata.tasks("F", record.run_id))) == 40
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_one_connection_serves_many_threads(metadata: LocalMetadataSync) -> None:
    def write(n: int) -> None:
        metadata.put_runs([run(str(n))])
        metadata.put_tasks(tasks(str(n), 20))
        assert len(list(metadata.tasks("F", str(n)))) == 20

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(metadata.runs())) == 8


def test_the_file_is_private(tmp_path: Path, metadata: LocalMetadataSync) -> None:
    old = os.umask(0)
    try:
        metadata.put_runs([run()])
    finally:
        os.umask(old)
    for path in tmp_path.glob("metadata.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_batch_is_whole_or_not_there(metadata: LocalMetadataSync) -> None:
    metadata.put_runs([run()])
    broken = replace(run("R2"), status=None)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="cannot be used"):
        metadata.put_runs([run("R1"), broken])
    assert [r.run_id for r in metadata.runs()] == ["R"]
    metadata.put_runs([run("R1")])


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    with LocalMetadataSync(path) as metadata:
        metadata.put_runs([run()])
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    with (
        LocalMetadataSync(path) as metadata,
        pytest.raises(StoreError, match="version 2") as caught,
    ):
        metadata.flows()
    assert "later" in (caught.value.hint or "")


def test_an_older_version_is_brought_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metadata.db"
    with LocalMetadataSync(path) as metadata:
        metadata.put_runs([run()])
    monkeypatch.setattr(
        schema, "_UPGRADES", (*schema._UPGRADES, "ALTER TABLE runs ADD COLUMN cost REAL")
    )
    monkeypatch.setattr(schema, "VERSION", 2)
    with LocalMetadataSync(path) as metadata:
        assert metadata.run("F", "R") == run()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT cost FROM runs").fetchall() == [(None,)]
    connection.close()


def test_an_upgrade_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metadata.db"
    with LocalMetadataSync(path) as metadata:
        metadata.put_runs([run()])
    upgrade = "ALTER TABLE runs ADD COLUMN cost REAL; ALTER TABLE nothing ADD COLUMN x"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_UPGRADES", (*schema._UPGRADES, upgrade))
        patch.setattr(schema, "VERSION", 2)
        with LocalMetadataSync(path) as metadata, pytest.raises(StoreError, match="nothing"):
            metadata.flows()
    with LocalMetadataSync(path) as metadata:
        assert metadata.run("F", "R") == run()


def test_what_is_no_database_is_told_with_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    path.write_bytes(b"this is not a database, but long enough to look at" * 100)
    with LocalMetadataSync(path) as metadata, pytest.raises(StoreError, match="damaged") as caught:
        metadata.flows()
    assert "--reindex" in (caught.value.hint or "")


def test_a_place_that_is_not_there_is_told(tmp_path: Path) -> None:
    with (
        LocalMetadataSync(tmp_path / "no" / "metadata.db") as metadata,
        pytest.raises(StoreAccessError, match="No such file"),
    ):
        metadata.flows()


def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", 1 << 20) as disk,
        LocalMetadataSync(disk / "metadata.db") as metadata,
    ):
        metadata.put_runs([run()])

        def fill() -> None:
            for n in range(1000):
                metadata.put_tasks(
                    [replace(task, task_id=f"{n}.{task.task_id}") for task in tasks("R", 500)]
                )

        with pytest.raises(StoreAccessError):
            fill()
        kept = len(list(metadata.tasks("F", "R")))
        assert kept
        assert kept % 500 == 0
        assert metadata.run("F", "R") == run()


def test_a_lock_that_is_never_freed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "metadata.db"
    with LocalMetadataSync(path) as metadata:
        metadata.put_runs([run()])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert metadata.run("F", "R") == run()  # readers do not wait
        with pytest.raises(StoreUnavailableError, match="locked"):
            metadata.put_runs([run("R2")])
        other.execute("ROLLBACK")
        other.close()
        metadata.put_runs([run("R2")])


def test_it_can_be_used_again_after_it_was_closed(metadata: LocalMetadataSync) -> None:
    metadata.put_runs([run()])
    metadata.close()
    metadata.close()
    assert metadata.flows() == ["F"]


async def test_two_clients_of_one_loop_agree(tmp_path: Path) -> None:
    one, two = LocalMetadata(tmp_path / "m.db"), LocalMetadata(tmp_path / "m.db")
    async with asyncio.TaskGroup() as group:
        for n in range(10):
            group.create_task((one if n % 2 else two).put_runs([run(str(n))]))
    assert [r.run_id async for r in one.runs()] == [r.run_id async for r in two.runs()]
    await one.aclose()
    await two.aclose()


# -- from journals --------------------------------------------------------------------------------


def decode(offset: int, payload: bytes) -> Fact | None:
    """A journal language of this test's own: the real one belongs to the scheduler."""
    kind, *facts = msgpack.unpackb(payload)
    if kind == "began":
        return RunRecord("F", facts[0], "running", 5, tags=("t",))
    if kind == "done":
        return RunEnd(*facts)
    if kind == "task":
        step, task_id, attempt, status, ended = facts
        return TaskRecord("", "", step, task_id, -1, attempt, status, 1, ended, result=offset)
    return None


def told(*facts: tuple[object, ...]) -> list[Fact | None]:
    return [decode(n, msgpack.packb(fact)) for n, fact in enumerate(facts)]


STORY = (
    ("began", "R"),
    ("task", "start", "0", 0, "succeeded", 10),
    ("task", "work", "1", 0, "retrying", 20),
    ("task", "work", "0", 0, "succeeded", 30),
    ("unknown to metadata",),
    ("task", "work", "1", 1, "succeeded", 40),
    ("done", "succeeded", 50, None),
)


def test_a_journal_tells_the_run_and_the_latest_attempts() -> None:
    found = records_of(told(*STORY))
    assert found is not None
    assert found.run == RunRecord("F", "R", "succeeded", 5, 50, tags=("t",))
    assert [(t.flow, t.run_id, t.ordinal, t.step, t.task_id, t.attempt) for t in found.tasks] == [
        ("F", "R", 0, "start", "0", 0),
        ("F", "R", 1, "work", "0", 0),
        ("F", "R", 2, "work", "1", 1),
    ]
    assert [task.result for task in found.tasks] == [1, 3, 5]


def test_tasks_are_in_the_order_of_their_launches_however_they_ended() -> None:
    def task(task_id: str, started_us: int, ended_us: int, attempt: int = 0) -> TaskRecord:
        status = "succeeded" if attempt else "failed"
        return TaskRecord("", "", "work", task_id, 0, attempt, status, started_us, ended_us)

    ended = [task("10", 7, 8), task("2", 7, 9), task("1", 3, 10), task("0", 2, 11)]
    found = records_of([*told(STORY[0]), *ended, task("0", 20, 21, attempt=1)])
    assert found is not None
    assert [(t.task_id, t.ordinal) for t in found.tasks] == [
        ("0", 0),
        ("1", 1),
        ("2", 2),
        ("10", 3),
    ]


def test_a_run_without_an_end_was_interrupted_unless_it_is_alive() -> None:
    unfinished = told(*STORY[:4])
    dead, alive = records_of(unfinished), records_of(unfinished, is_alive=True)
    assert dead is not None
    assert alive is not None
    assert (dead.run.status, dead.run.ended_us) == ("interrupted", 30)
    assert (alive.run.status, alive.run.ended_us) == ("running", None)
    only = records_of(told(STORY[0]))
    assert only is not None
    assert only.run.ended_us == 5


def test_a_journal_that_never_began_gives_nothing() -> None:
    assert records_of([]) is None


def journal(layout: Layout, run_id: str, *facts: tuple[object, ...]) -> Path:
    layout.create_run("F", run_id)
    path = layout.journal("F", run_id)
    with (
        Lease.acquire(str(layout.lock("F", run_id)), run=f"F/{run_id}", since_us=0) as lease,
        JournalWriter(str(path), lease) as writer,
    ):
        writer.append_many([msgpack.packb(fact) for fact in facts])
    return path


def test_every_journal_of_a_datastore_is_indexed(layout: Layout) -> None:
    many = [("task", "work", str(n), 0, "succeeded", n) for n in range(1200)]
    journal(layout, "R1", ("began", "R1"), *many)
    torn = journal(layout, "R2", ("began", "R2"), ("done", "failed", 9, "why"))
    torn.write_bytes(torn.read_bytes()[:-2])
    journal(layout, "R3")
    layout.create_run("F", "R4")
    hurt = journal(layout, "R5", ("began", "R5"), ("task", "a", "0", 0, "succeeded", 1))
    data = bytearray(hurt.read_bytes())
    data[14] ^= 1
    hurt.write_bytes(data)
    journal(layout, "R6", ("began", "R6"))
    with Lease.acquire(str(layout.lock("F", "R6")), run="F/R6", since_us=0):
        done = reindex(layout, str(layout.metadata), decode)
        assert done.written == 3
        assert set(done.problems) == {"F/R5"}, "R3 and R4 never began"
        assert "damaged" in done.problems["F/R5"]
        layout.metadata.unlink()
        known = LocalMetadataSync(layout.metadata, known=lambda: known_runs(layout, decode))
        for metadata in (known, LocalMetadataSync(layout.metadata)):
            with metadata:
                states = {r.run_id: r.status for r in metadata.runs()}
                assert states == {"R1": "interrupted", "R2": "interrupted", "R6": "running"}
                assert len(list(metadata.tasks("F", "R1"))) == 1200


def test_indexing_again_keeps_tags_and_changes_nothing_else(layout: Layout) -> None:
    journal(layout, "R1", *(("began", "R1"), *STORY[1:]))
    with LocalMetadataSync(layout.metadata) as metadata:
        reindex(layout, str(layout.metadata), decode)
        metadata.change_tags("F", "R1", add=["kept"], remove=())
        before = [metadata.run("F", "R1"), list(metadata.tasks("F", "R1"))]
        reindex(layout, str(layout.metadata), decode)
        assert [metadata.run("F", "R1"), list(metadata.tasks("F", "R1"))] == before


def test_indexing_again_removes_what_no_journal_tells_of(layout: Layout) -> None:
    journal(layout, "R1", *(("began", "R1"), *STORY[1:]))
    with LocalMetadataSync(layout.metadata) as metadata:
        reindex(layout, str(layout.metadata), decode)
        before = metadata.run("F", "R1"), list(metadata.tasks("F", "R1"))
        metadata.put_runs([run("GHOST")])
        metadata.put_tasks([*tasks("GHOST", 2), *tasks("R1", 9)])
        reindex(layout, str(layout.metadata), decode)
        assert [r.run_id for r in metadata.runs()] == ["R1"]
        assert list(metadata.tasks("F", "GHOST")) == []
        assert (metadata.run("F", "R1"), list(metadata.tasks("F", "R1"))) == before


def test_a_database_that_could_not_be_filled_is_not_made(layout: Layout) -> None:
    journal(layout, "R1", ("began", "R1"))

    def broken() -> Iterator[Rebuilt]:
        yield from known_runs(layout, decode)
        raise StoreError("the second journal cannot be read now")

    with LocalMetadataSync(layout.metadata, known=broken) as metadata, pytest.raises(StoreError):
        metadata.flows()
    again = LocalMetadataSync(layout.metadata, known=lambda: known_runs(layout, decode))
    with again:
        assert again.flows() == ["F"]


def test_a_damaged_database_is_not_replaced_under_a_run_that_is_alive(layout: Layout) -> None:
    journal(layout, "R1", ("began", "R1"))
    layout.metadata.write_bytes(b"nonsense" * 100)
    with (
        Lease.acquire(str(layout.lock("F", "R1")), run="F/R1", since_us=0),
        pytest.raises(UsageError, match="F/R1 is alive"),
    ):
        reindex(layout, str(layout.metadata), decode)
    assert reindex(layout, str(layout.metadata), decode).written == 1
