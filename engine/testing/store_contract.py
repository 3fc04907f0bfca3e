"""The laws of metadata and log stores as tests. Subclass one and give it your store.

    class TestMyStore(MetadataContract):
        async def make(self, tmp_path):
            return MyMetadata(...)

The tests are coroutines: run them with pytest-asyncio in its auto mode.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.errors import NotFoundError, UsageError
from engine.stores.logs import LogBatch, LogQuery, LogRecord, LogStore
from engine.stores.metadata.base import MetadataStore, RunRecord, TaskRecord


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
