"""Logs of a run in its directory, beyond the laws of every log store."""

import resource
import time
from pathlib import Path

import pytest

from engine.errors import StoreAccessError, UsageError
from engine.stores.layout import Layout
from engine.stores.logs import LocalLogStore, LogBatch, LogQuery, LogReader, LogWriter
from tests.unit.stores.faulty import FaultyCalls


def batch(n: int, count: int = 1, step: str = "work", text: str = "line") -> LogBatch:
    return LogBatch(
        step, str(n), 0, "stdout", [(n * 1000 + i, f"{text} {n}.{i}") for i in range(count)]
    )


def test_a_reader_follows_a_writer_of_another_process(layout: Layout) -> None:
    layout.create_run("F", "R")
    path = str(layout.log("F", "R"))
    store = LocalLogStore(layout)
    writer = LogWriter(path)
    position = 0
    for n in range(5):
        writer.append([batch(n)])
        page = store.page_now("F", "R", LogQuery(), position)
        assert [record.text for record in page.records] == [f"line {n}.0"]
        position = page.position
    writer.append([])
    writer.append([LogBatch("work", "0", 0, "stdout", [])])
    assert store.page_now("F", "R", LogQuery(), position).position == position
    writer.close()


def test_a_log_cut_by_a_crash_is_read_up_to_the_cut(layout: Layout) -> None:
    layout.create_run("F", "R")
    path = layout.log("F", "R")
    writer = LogWriter(str(path))
    writer.append([batch(0), batch(1)])
    writer.close()
    path.write_bytes(path.read_bytes()[:-3])
    page = LocalLogStore(layout).page_now("F", "R", LogQuery())
    assert [record.text for record in page.records] == ["line 0.0"]


def test_a_log_that_cannot_be_written_says_so(layout: Layout) -> None:
    layout.create_run("F", "R")
    writer = LogWriter(str(layout.log("F", "R")))
    with FaultyCalls(0, 28).active(), pytest.raises(StoreAccessError, match="No space"):
        writer.append([batch(0)])
    writer.append([batch(1)])
    writer.close()
    page = LocalLogStore(layout).page_now("F", "R", LogQuery())
    assert [record.text for record in page.records] == ["line 1.0"]


def test_a_pattern_is_checked_before_the_file_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        LogReader(str(tmp_path / "none"), LogQuery(grep="["))


@pytest.mark.serial
def test_the_tail_of_a_large_log_needs_little_time_and_memory(layout: Layout) -> None:
    layout.create_run("F", "R")
    writer = LogWriter(str(layout.log("F", "R")))
    text = "x" * 200
    for n in range(2000):
        writer.append([batch(n, 100, step=f"s{n % 10}", text=text)])
    writer.close()
    assert layout.log("F", "R").stat().st_size > 40_000_000
    store = LocalLogStore(layout)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    page = store.page_now("F", "R", LogQuery(steps=frozenset({"s3"}), tail=150))
    assert time.perf_counter() - began < 1
    assert [record.at_us for record in page.records] == [
        *range(1_983_050, 1_983_100),
        *range(1_993_000, 1_993_100),
    ]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB
