"""The laws of the store seams as tests. Subclass one and give it your store.

    class TestMyStore(BlobStoreContract):
        async def make(self, tmp_path):
            return MyBlobStore(...)

The tests are coroutines: run them with pytest-asyncio in its auto mode.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.errors import BlobNotFoundError, NotFoundError, UnsafeNameError, UsageError
from engine.stores.base import BlobStore
from engine.stores.logs import LogBatch, LogQuery, LogRecord, LogStore
from engine.stores.metadata.base import MetadataStore, RunRecord, TaskRecord

UNSAFE_KEYS = (
    "",
    "/",
    "/etc/passwd",
    "..",
    "a/../b",
    "../../etc/passwd",
    "a//b",
    "a/",
    "./a",
    "a\\..\\b",
    "%2e%2e/a",
    "%252e%252e/a",
    "a\0b",
    "a\nb",
    "a b",
    "\u2025/a",
    "\uff0e\uff0e/a",
    ".hidden",
    "-rf",
    "x" * 129,
    "a/" * 600 + "a",
)
"""Names that lead, or led somebody once, out of a store."""


class BlobStoreContract(ABC):
    """The laws in `engine.stores.base.BlobStore`."""

    @abstractmethod
    async def make(self, tmp_path: Path) -> BlobStore:
        """An empty store."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[BlobStore]:
        store = await self.make(tmp_path)
        yield store
        await store.aclose()

    async def test_what_was_put_is_what_one_gets(self, store: BlobStore) -> None:
        assert await store.put("a/b", (b"one ", bytearray(b"two "), memoryview(b"three")))
        assert await store.get("a/b") == b"one two three"

    async def test_a_later_put_replaces_an_earlier_one(self, store: BlobStore) -> None:
        await store.put("a", (b"first, and longer",))
        await store.put("a", (b"second",))
        assert await store.get("a") == b"second"

    @pytest.mark.parametrize("size", [0, 1, 65_536, 5 << 20])
    async def test_blobs_of_any_size_come_back(self, store: BlobStore, size: int) -> None:
        data = bytes(i % 251 for i in range(min(size, 4096))) * (size // 4096 or 1)
        await store.put("big", (data,))
        assert await store.get("big") == data
        info = await store.stat("big")
        assert info is not None
        assert info.size_bytes == len(data)

    async def test_buffers_of_wide_elements_are_taken_as_bytes(self, store: BlobStore) -> None:
        await store.put("wide", (memoryview(bytes(16)).cast("I"), b"!"))
        assert await store.get("wide") == bytes(16) + b"!"

    async def test_the_callers_buffer_may_change_after_the_put(self, store: BlobStore) -> None:
        buffer = bytearray(b"before")
        await store.put("a", (buffer,))
        buffer[:] = b"after!"
        assert await store.get("a") == b"before"

    async def test_a_range_is_cut_at_the_end(self, store: BlobStore) -> None:
        await store.put("a", (b"0123456789",))
        assert await store.get_range("a", 2, 3) == b"234"
        assert await store.get_range("a", 8, 100) == b"89"
        assert await store.get_range("a", 10, 5) == b""
        assert await store.get_range("a", 3, 0) == b""

    async def test_getting_what_is_not_there_names_the_key(self, store: BlobStore) -> None:
        await store.put("a/b", (b"x",))
        for key in ("a", "a/c", "a/b/c", "z"):
            with pytest.raises(BlobNotFoundError) as caught:
                await store.get(key)
            assert caught.value.key == key
            with pytest.raises(BlobNotFoundError):
                await store.get_range(key, 0, 1)
            assert await store.stat(key) is None

    async def test_if_absent_keeps_what_was_there(self, store: BlobStore) -> None:
        assert await store.put("a", (b"first",), if_absent=True)
        assert not await store.put("a", (b"second",), if_absent=True)
        assert await store.get("a") == b"first"

    async def test_of_many_writers_of_an_absent_key_one_wins(self, store: BlobStore) -> None:
        async with asyncio.TaskGroup() as group:
            puts = [
                group.create_task(store.put("the/key", (b"writer %d" % n,), if_absent=True))
                for n in range(32)
            ]
        winners = [n for n, put in enumerate(puts) if put.result()]
        assert len(winners) == 1
        assert await store.get("the/key") == b"writer %d" % winners[0]

    @pytest.mark.parametrize("size", [0, 1, 100_000, 19 << 20])
    async def test_files_go_in_and_out_whole(
        self, store: BlobStore, tmp_path: Path, size: int
    ) -> None:
        data = bytes(n % 253 for n in range(1 << 16)) * (1 + (size >> 16))
        (tmp_path / "in").write_bytes(data[:size])
        with (tmp_path / "in").open("rb") as given, (tmp_path / "out").open("wb") as taken:
            given.seek(min(size, 10))
            assert await store.put_file("the/file", given.fileno())
            assert not await store.put_file("the/file", given.fileno(), if_absent=True)
            assert await store.get_to_file("the/file", taken.fileno()) == size
        assert (tmp_path / "out").read_bytes() == data[:size]
        assert await store.get("the/file") == data[:size]
        assert await store.get_range("the/file", size // 2, 10 << 20) == data[size // 2 : size]

    async def test_a_file_of_a_blob_that_is_not_there_names_the_key(
        self, store: BlobStore, tmp_path: Path
    ) -> None:
        with (tmp_path / "out").open("wb") as taken, pytest.raises(BlobNotFoundError) as caught:
            await store.get_to_file("not/there", taken.fileno())
        assert caught.value.key == "not/there"

    async def test_of_many_writers_of_a_large_blob_one_wins(self, store: BlobStore) -> None:
        blobs = [bytes([n]) * (17 << 20) for n in range(3)]
        async with asyncio.TaskGroup() as group:
            puts = [group.create_task(store.put("big", (b,), if_absent=True)) for b in blobs]
        winners = [n for n, put in enumerate(puts) if put.result()]
        assert len(winners) == 1
        assert await store.get("big") == blobs[winners[0]]

    async def test_a_reader_sees_a_whole_blob_or_none(self, store: BlobStore) -> None:
        blobs = {bytes([n]) * 300_000 for n in range(8)}
        seen: set[bytes] = set()

        async def read() -> None:
            for _ in range(40):
                try:
                    seen.add(await store.get("k"))
                except BlobNotFoundError:
                    await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            for blob in blobs:
                group.create_task(store.put("k", (blob,)))
        assert seen <= blobs

    async def test_a_list_is_in_order_of_key(self, store: BlobStore) -> None:
        keys = ["a", "a-b", "a.b/x", "a/b", "a/b-c/d", "a/b/c", "b", "c/1", "c/10", "c/2", "A/z"]
        keys = [k for k in keys if k not in ("a", "a/b")]  # a key is no folder of others
        for key in keys:
            await store.put(key, (key.encode(),))
        assert [info.key async for info in store.list()] == sorted(keys)
        assert [info.key async for info in store.list("c/1")] == ["c/1", "c/10"]
        assert [info.key async for info in store.list("a/")] == ["a/b-c/d", "a/b/c"]
        assert [info.key async for info in store.list("nothing/here")] == []
        assert [i.size_bytes async for i in store.list("b")] == [1]

    async def test_a_list_longer_than_a_page_is_whole(self, store: BlobStore) -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(1100):
                group.create_task(store.put(f"n/{n:04}", (b"",)))
        assert [i.key async for i in store.list("n/")] == [f"n/{n:04}" for n in range(1100)]

    async def test_deleting_is_idempotent(self, store: BlobStore) -> None:
        await store.put("a", (b"1",))
        await store.put("b", (b"2",))
        await store.delete(["a", "not-there", "a/b"])
        await store.delete(["a"])
        assert [info.key async for info in store.list()] == ["b"]

    @pytest.mark.parametrize("key", UNSAFE_KEYS)
    async def test_a_key_cannot_leave_the_store(self, store: BlobStore, key: str) -> None:
        with pytest.raises(UnsafeNameError):
            await store.put(key, (b"x",))
        with pytest.raises(UnsafeNameError):
            await store.get(key)
        with pytest.raises(UnsafeNameError):
            await store.stat(key)
        with pytest.raises(UnsafeNameError):
            await store.delete([key])


def _run(run_id: str = "R1", created_us: int = 1, **facts: object) -> RunRecord:
    return replace(RunRecord("Flow", run_id, "running", created_us), **facts)


def _task(task_id: str, ordinal: int, **facts: object) -> TaskRecord:
    record = TaskRecord("Flow", "R1", "work", task_id, ordinal, 0, "running")
    return replace(record, **facts)


class MetadataContract(ABC):
    """The laws in `engine.stores.metadata.base.MetadataStore`.

    One goes beyond replacing: once a run is there, its tags only change by `change_tags`, so that a
    driver which reports its run's end does not undo what users did meanwhile.
    """

    @abstractmethod
    async def make(self, tmp_path: Path) -> MetadataStore:
        """An empty store."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[MetadataStore]:
        store = await self.make(tmp_path)
        yield store
        await store.aclose()

    async def test_an_empty_store_has_nothing(self, store: MetadataStore) -> None:
        assert await store.flows() == []
        assert await store.run("Flow", "R1") is None
        assert [run async for run in store.runs()] == []
        assert await store.steps("Flow", "R1") == []
        assert await store.task("Flow", "R1", "work", "0") is None
        assert [task async for task in store.tasks("Flow", "R1")] == []
        await store.delete_run("Flow", "R1")

    async def test_every_fact_of_a_run_comes_back(self, store: MetadataStore) -> None:
        full = RunRecord(
            flow="Flow",
            run_id="R1",
            status="failed",
            created_us=2**52,
            ended_us=2**52 + 1,
            user="zoë",
            tags=("b", "a", "ünï:code", 'quo"te'),
            system_tags=("python:3.11",),
            origin_run_id="R0",
            reason="a\nreason",
            host="h",
            pid=2**22,
        )
        await store.put_runs([full, _run("R2")])
        assert await store.run("Flow", "R1") == full
        assert await store.run("Flow", "R2") == _run("R2")

    async def test_every_fact_of_a_task_comes_back(self, store: MetadataStore) -> None:
        done = _task(
            "1.2-3",
            7,
            attempt=2,
            status="succeeded",
            started_us=5,
            ended_us=9,
            result=2**40,
            reused=True,
            caught=True,
            failure=b"\x00\xff",
        )
        await store.put_runs([_run()])
        await store.put_tasks([done, _task("0", 0)])
        assert await store.task("Flow", "R1", "work", "1.2-3") == done
        assert await store.task("Flow", "R1", "work", "0") == _task("0", 0)

    async def test_a_later_record_replaces_an_earlier_one(self, store: MetadataStore) -> None:
        await store.put_runs([_run(), _run(status="succeeded", ended_us=3)])
        await store.put_tasks([_task("0", 0), _task("0", 0, attempt=1, status="retrying")])
        await store.put_tasks([_task("0", 0, attempt=1, status="succeeded")])
        run = await store.run("Flow", "R1")
        assert run == _run(status="succeeded", ended_us=3)
        found = [task async for task in store.tasks("Flow", "R1")]
        assert found == [_task("0", 0, attempt=1, status="succeeded")]

    async def test_runs_are_newest_first_and_filtered(self, store: MetadataStore) -> None:
        other = replace(_run("R9", 25), flow="Other")
        await store.put_runs(
            [
                _run("R1", 10, status="failed", tags=("x", "y")),
                _run("R3", 30, tags=("x",), system_tags=("y",)),
                _run("R2", 20, status="failed", system_tags=("z",)),
                other,
            ]
        )
        assert await store.flows() == ["Flow", "Other"]

        async def ids(**query: object) -> list[str]:
            return [r.run_id async for r in store.runs(**query)]  # type: ignore[arg-type]  # varied on purpose

        assert await ids() == ["R3", "R9", "R2", "R1"]
        assert await ids(flow="Flow") == ["R3", "R2", "R1"]
        assert await ids(flow="Flow", status="failed") == ["R2", "R1"]
        assert await ids(since_us=20) == ["R3", "R9", "R2"]
        assert await ids(tags=["x"]) == ["R3", "R1"]
        assert await ids(tags=["x", "y"]) == ["R3", "R1"]
        assert await ids(tags=["z"], flow="Flow") == ["R2"]
        assert await ids(tags=["no"]) == []
        assert await ids(flow="flow") == []

    async def test_lists_of_many_pages_are_whole(self, store: MetadataStore) -> None:
        # Equal times and equal ordinals: a page must not end inside a tie and lose the rest of it.
        await store.put_runs([_run(f"R{n:04}", created_us=n // 700) for n in range(1600)])
        runs = [run.run_id async for run in store.runs("Flow")]
        assert runs == [f"R{n:04}" for n in reversed(range(1600))]
        await store.put_tasks([_task(f"{n:04}", ordinal=n // 700) for n in range(1600)])
        tasks = [task.task_id async for task in store.tasks("Flow", "R1")]
        assert tasks == [f"{n:04}" for n in range(1600)]

    async def test_a_list_goes_on_while_rows_are_written(self, store: MetadataStore) -> None:
        await store.put_tasks([_task(str(n), n) for n in range(1200)])
        seen = []
        async for task in store.tasks("Flow", "R1"):
            if task.ordinal == 3:
                await store.put_tasks([_task("late", 5000)])
            seen.append(task.task_id)
        assert [s for s in seen if s != "late"] == [str(n) for n in range(1200)]

    async def test_tasks_come_in_order_of_launch(self, store: MetadataStore) -> None:
        await store.put_tasks(
            [
                _task("1", 3),
                _task("0", 1, status="failed"),
                replace(_task("0", 0), step="start"),
                replace(_task("0", 9), run_id="R2"),
            ]
        )
        assert [(t.step, t.task_id) async for t in store.tasks("Flow", "R1")] == [
            ("start", "0"),
            ("work", "0"),
            ("work", "1"),
        ]
        assert [t.task_id async for t in store.tasks("Flow", "R1", "work")] == ["0", "1"]
        failed = [t.task_id async for t in store.tasks("Flow", "R1", status="failed")]
        assert failed == ["0"]
        assert await store.steps("Flow", "R1") == ["start", "work"]

    async def test_tags_are_added_and_removed(self, store: MetadataStore) -> None:
        await store.put_runs([_run(tags=("a", "b"))])
        run = await store.change_tags("Flow", "R1", add=["c", "a"], remove=["b", "never"])
        assert run.tags == ("a", "c")
        assert await store.run("Flow", "R1") == run

    async def test_a_drivers_record_does_not_undo_tags(self, store: MetadataStore) -> None:
        await store.put_runs([_run(tags=("a",))])
        await store.change_tags("Flow", "R1", add=["good"], remove=["a"])
        await store.put_runs([_run(tags=("a",), status="succeeded")])
        run = await store.run("Flow", "R1")
        assert run is not None
        assert (run.tags, run.status) == (("good",), "succeeded")

    async def test_tags_changed_at_once_are_all_kept(self, store: MetadataStore) -> None:
        await store.put_runs([_run()])
        async with asyncio.TaskGroup() as group:
            for n in range(20):
                group.create_task(store.change_tags("Flow", "R1", add=[f"t{n}"], remove=()))
        run = await store.run("Flow", "R1")
        assert run is not None
        assert set(run.tags) == {f"t{n}" for n in range(20)}

    @pytest.mark.parametrize("tag", ["", "a\nb", "a\0", "\x1b[31m", "x" * 257])
    async def test_what_cannot_be_a_tag_is_refused(self, store: MetadataStore, tag: str) -> None:
        await store.put_runs([_run(tags=("a",))])
        with pytest.raises(UsageError):
            await store.change_tags("Flow", "R1", add=[tag], remove=["a"])
        assert await store.run("Flow", "R1") == _run(tags=("a",))

    async def test_a_run_has_at_most_a_hundred_tags(self, store: MetadataStore) -> None:
        await store.put_runs([_run()])
        await store.change_tags("Flow", "R1", add=[str(n) for n in range(100)], remove=())
        with pytest.raises(UsageError):
            await store.change_tags("Flow", "R1", add=["one more"], remove=())

    async def test_tagging_a_run_that_is_not_there_is_an_error(self, store: MetadataStore) -> None:
        with pytest.raises(NotFoundError, match="Flow/R1"):
            await store.change_tags("Flow", "R1", add=["x"], remove=())

    async def test_a_deleted_run_takes_its_tasks_along(self, store: MetadataStore) -> None:
        await store.put_runs([_run("R1"), _run("R2")])
        await store.put_tasks([_task("0", 0), replace(_task("0", 0), run_id="R2")])
        await store.delete_run("Flow", "R1")
        assert await store.run("Flow", "R1") is None
        assert [t async for t in store.tasks("Flow", "R1")] == []
        assert await store.run("Flow", "R2") is not None
        assert len([t async for t in store.tasks("Flow", "R2")]) == 1


def _batch(step: str, task_id: str, *lines: tuple[int, str], **facts: object) -> LogBatch:
    return replace(LogBatch(step, task_id, 0, "stdout", lines), **facts)


class LogStoreContract(ABC):
    """The laws in `engine.stores.logs.LogStore`."""

    @abstractmethod
    async def make(self, tmp_path: Path) -> LogStore:
        """A store without logs."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[LogStore]:
        store = await self.make(tmp_path)
        yield store
        await store.aclose()

    async def test_a_run_without_a_log_has_an_empty_one(self, store: LogStore) -> None:
        page = await store.page("Flow", "R1", LogQuery())
        assert (list(page.records), page.position) == ([], 0)
        assert await _texts(store, LogQuery()) == []

    async def test_lines_come_back_in_order(self, store: LogStore) -> None:
        await store.append("Flow", "R1", [_batch("a", "0", (1, "one"), (2, "two"))])
        await store.append("Flow", "R1", [_batch("a", "0", (3, "three"))])
        assert await _texts(store, LogQuery()) == ["one", "two", "three"]

    @pytest.mark.parametrize(
        "text", ["", "ünï 中文 🎉", "a\0b", "\x1b[31mred", "\udc80\udcff", "x" * 100_000, "a\rb"]
    )
    async def test_any_text_comes_back(self, store: LogStore, text: str) -> None:
        await store.append("Flow", "R1", [_batch("a", "0", (1, text))])
        assert await _texts(store, LogQuery()) == [text]

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            (LogQuery(), ["a1", "a2", "b1", "b2 err", "a3 again"]),
            (LogQuery(steps=frozenset({"a"})), ["a1", "a2", "a3 again"]),
            (LogQuery(tasks=frozenset({"b/1.0"})), ["b1", "b2 err"]),
            (LogQuery(attempt=1), ["a3 again"]),
            (LogQuery(stream="stderr"), ["b2 err"]),
            (LogQuery(since_us=20), ["a2", "b1", "b2 err", "a3 again"]),
            (LogQuery(until_us=30), ["a1", "a2"]),
            (LogQuery(grep="^a[12]"), ["a1", "a2"]),
            (LogQuery(grep="nowhere"), []),
            (LogQuery(tail=2), ["b2 err", "a3 again"]),
            (LogQuery(tail=0), []),
            (LogQuery(tail=100), ["a1", "a2", "b1", "b2 err", "a3 again"]),
            (LogQuery(steps=frozenset({"a"}), tail=2), ["a2", "a3 again"]),
            (LogQuery(grep="a", tail=1), ["a3 again"]),
            (LogQuery(steps=frozenset({"a"}), attempt=0, since_us=11, until_us=99), ["a2"]),
        ],
    )
    async def test_a_query_gets_the_lines_that_fit(
        self, store: LogStore, query: LogQuery, expected: Sequence[str]
    ) -> None:
        await store.append(
            "Flow",
            "R1",
            [
                _batch("a", "0", (10, "a1"), (20, "a2")),
                _batch("b", "1.0", (30, "b1")),
                _batch("b", "1.0", (40, "b2 err"), stream="stderr"),
                _batch("a", "0", (50, "a3 again"), attempt=1),
            ],
        )
        assert await _texts(store, query) == expected

    async def test_a_record_says_whose_line_it_is(self, store: LogStore) -> None:
        batch = _batch("a", "1.2-1", (7, "text"), attempt=3, stream="stderr")
        await store.append("Flow", "R1", [batch])
        found = [record async for record in store.read("Flow", "R1", LogQuery())]
        assert found == [LogRecord("a", "1.2-1", 3, "stderr", 7, "text")]

    async def test_following_reads_every_line_once(self, store: LogStore) -> None:
        position, seen = 0, []
        for n in range(50):
            lines = tuple((n, f"{n}.{i}") for i in range(n * 7 % 90))
            await store.append("Flow", "R1", [_batch("a", "0", *lines)])
            while (page := await store.page("Flow", "R1", LogQuery(), position=position)).records:
                seen += [record.text for record in page.records]
                position = page.position
        assert seen == [f"{n}.{i}" for n in range(50) for i in range(n * 7 % 90)]

    async def test_a_page_of_nothing_that_fits_still_moves_on(self, store: LogStore) -> None:
        await store.append("Flow", "R1", [_batch("a", "0", (1, "x"))])
        query = LogQuery(steps=frozenset({"b"}))
        page = await store.page("Flow", "R1", query)
        assert not page.records
        await store.append("Flow", "R1", [_batch("b", "0", (2, "y"))])
        page = await store.page("Flow", "R1", query, position=page.position)
        assert [record.text for record in page.records] == ["y"]

    async def test_a_log_of_many_pages_is_read_whole(self, store: LogStore) -> None:
        for n in range(30):
            lines = tuple((n, f"{n * 100 + i}") for i in range(100))
            await store.append("Flow", "R1", [_batch("a", "0", *lines)])
        assert await _texts(store, LogQuery()) == [str(n) for n in range(3000)]
        assert await _texts(store, LogQuery(tail=1500)) == [str(n) for n in range(1500, 3000)]

    async def test_runs_have_logs_of_their_own(self, store: LogStore) -> None:
        await store.append("Flow", "R1", [_batch("a", "0", (1, "one"))])
        await store.append("Flow", "R2", [_batch("a", "0", (1, "two"))])
        assert await _texts(store, LogQuery()) == ["one"]

    async def test_a_pattern_that_is_none_is_told(self, store: LogStore) -> None:
        await store.append("Flow", "R1", [_batch("a", "0", (1, "one"))])
        with pytest.raises(UsageError, match="regular expression"):
            await store.page("Flow", "R1", LogQuery(grep="("))


async def _texts(store: LogStore, query: LogQuery) -> list[str]:
    return [record.text async for record in store.read("Flow", "R1", query)]
