"""What tasks printed: the LogStore seam, and logs in a run's local directory.

A log is a file of frames (frames.py, magic "AFG1"). A payload is u16 length of the head, the head,
the body. The head, msgpack [step, task_id, attempt, stream, first_us, last_us, lines], is all that
is decoded of a frame that a query does not want; the body is msgpack [[at_us, text], ...].
"""

import re
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Protocol

import msgpack
from msgspec import Struct
from msgspec.structs import replace

from engine.errors import NotFoundError, UsageError
from engine.stores.frames import FrameReader, FrameWriter
from engine.stores.layout import Layout
from engine.stores.threads import in_thread

LOG_MAGIC = b"AFG1"
PAGE_RECORDS = 1000

_HEAD_LENGTH = struct.Struct("<H")
_UTF8 = "surrogatepass"  # what a task printed is kept even where it is no text


class LogBatch(Struct, frozen=True):
    """Lines of one attempt and stream ("stdout" or "stderr"), as (at_us, text), in order."""

    step: str
    task_id: str
    attempt: int
    stream: str
    lines: Sequence[tuple[int, str]]


class LogRecord(Struct, frozen=True):
    """One line."""

    step: str
    task_id: str
    attempt: int
    stream: str
    at_us: int
    text: str


class LogQuery(Struct, frozen=True):
    """Which lines to read; what is None does not matter.

    `tasks` are "step/task_id". `grep` is a regular expression found anywhere in the line. `tail`
    keeps the last so many of the lines that fit.
    """

    steps: frozenset[str] | None = None
    tasks: frozenset[str] | None = None
    attempt: int | None = None
    stream: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    grep: str | None = None
    tail: int | None = None


class LogPage(Struct, frozen=True):
    """`position` is where the next page begins; a page without records is the end for now."""

    records: Sequence[LogRecord]
    position: int


class LogStore(Protocol):
    """Laws, checked by `engine.testing.store_contract.LogStoreContract`:

    lines of one task and stream are read in the order in which they were appended; a page begins
    where the last one ended, and nothing is read twice or missed, also while lines are appended;
    a run without a log is an empty log.
    """

    async def append(self, flow: str, run_id: str, batches: Sequence[LogBatch]) -> None: ...

    async def page(
        self, flow: str, run_id: str, query: LogQuery, *, position: int = 0
    ) -> LogPage: ...

    def read(
        self, flow: str, run_id: str, query: LogQuery, *, position: int = 0
    ) -> AsyncIterator[LogRecord]: ...

    async def aclose(self) -> None: ...


class LogWriter:
    """Appends to a run's log. Synchronous: an append of a batch is one write, 3 us."""

    def __init__(self, path: str, *, durability: str = "process") -> None:
        self._frames = FrameWriter(path, LOG_MAGIC, durability=durability)

    def append(self, batches: Sequence[LogBatch]) -> None:
        """Append batches in one write.

        Raises:
            StoreAccessError: nothing of them was written.
        """
        self._frames.append_many([_pack(batch) for batch in batches if batch.lines])

    @property
    def end(self) -> int:
        """The size of the log so far, in bytes."""
        return self._frames.end

    @property
    def seal(self) -> tuple[int, int]:
        """The length of the log, and the CRC-32 of all of it."""
        return self._frames.seal

    def sync(self) -> None:
        """Make what was appended survive a loss of power, if durability is "power"."""
        self._frames.sync()

    def close(self) -> None:
        self._frames.close()


def _pack(batch: LogBatch) -> bytes:
    times = [at_us for at_us, _ in batch.lines]
    head = msgpack.packb(
        [
            batch.step,
            batch.task_id,
            batch.attempt,
            batch.stream,
            min(times),
            max(times),
            len(times),
        ]
    )
    body = msgpack.packb(list(batch.lines), unicode_errors=_UTF8)
    return b"".join((_HEAD_LENGTH.pack(len(head)), head, body))


class LogReader:
    """Reads a run's log, also while it is being written. Memory is one frame and `tail` lines.

    Raises:
        NotFoundError: there is no log.
        UsageError: `grep` is no regular expression.
    """

    def __init__(self, path: str, query: LogQuery) -> None:
        self._query = query
        self._pattern = _compiled(query.grep)
        self._frames = FrameReader(path, LOG_MAGIC)
        self._line_filter = (query.grep, query.since_us, query.until_us) != (None, None, None)

    def page(self, position: int) -> LogPage:
        """The records from `position`, whole frames, at least PAGE_RECORDS if there are so many.

        Raises:
            JournalDamagedError: the log is damaged before its tail.
        """
        if self._query.tail is not None:
            return LogPage(self._tail(position, self._query.tail), self._frames.position)
        records: list[LogRecord] = []
        for _, payload in self._frames.scan(position):
            records += self._records(payload)
            if len(records) >= PAGE_RECORDS:
                break
        return LogPage(records, self._frames.position)

    def close(self) -> None:
        self._frames.close()

    def _tail(self, position: int, count: int) -> list[LogRecord]:
        if self._line_filter:
            kept: deque[LogRecord] = deque(maxlen=count)
            for _, payload in self._frames.scan(position):
                kept.extend(self._records(payload))
            return list(kept)
        # Counting by heads alone spares decoding all lines but the last.
        frames: deque[tuple[int, int]] = deque()
        total = 0
        for offset, payload in self._frames.scan(position):
            head, _ = _head(payload)
            if self._wants(head):
                frames.append((offset, head[6]))
                total += head[6]
                while frames and total - frames[0][1] >= count:
                    total -= frames.popleft()[1]
        records = [r for offset, _ in frames for r in self._records(self._frames.read(offset))]
        return records[max(len(records) - count, 0) :]

    def _records(self, payload: bytes) -> Iterator[LogRecord]:
        head, start = _head(payload)
        if not self._wants(head):
            return
        query, pattern = self._query, self._pattern
        for at_us, text in msgpack.unpackb(payload[start:], unicode_errors=_UTF8):
            if (
                (query.since_us is None or at_us >= query.since_us)
                and (query.until_us is None or at_us < query.until_us)
                and (pattern is None or pattern.search(text))
            ):
                yield LogRecord(head[0], head[1], head[2], head[3], at_us, text)

    def _wants(self, head: list[Any]) -> bool:
        query = self._query
        step, task_id, attempt, stream, first_us, last_us, _ = head
        return (
            (query.steps is None or step in query.steps)
            and (query.tasks is None or f"{step}/{task_id}" in query.tasks)
            and query.attempt in (None, attempt)
            and query.stream in (None, stream)
            and (query.since_us is None or last_us >= query.since_us)
            and (query.until_us is None or first_us < query.until_us)
        )


def check_log(path: str, seal: tuple[int, int] | None) -> str | None:
    """What is wrong with a log; None if nothing is.

    Args:
        path: its file.
        seal: the length and the CRC-32 that it had when its run ended, if it has.

    Raises:
        NotFoundError: it is gone.
        StoreError: it is damaged.
    """
    with FrameReader(path, LOG_MAGIC) as frames:
        if not frames.has_magic:
            return "its head is gone"
        for offset, payload in frames.scan():
            try:
                _head(payload)
            except (ValueError, struct.error, msgpack.UnpackException):
                return f"the frame at byte {offset:,} cannot be read"
        if seal is not None and not frames.fits(*seal):
            return "it has lost its end, or frames of it have changed their places"
    return None


def _head(payload: bytes) -> tuple[list[Any], int]:
    start = _HEAD_LENGTH.size + _HEAD_LENGTH.unpack_from(payload)[0]
    return msgpack.unpackb(payload[_HEAD_LENGTH.size : start]), start


def _compiled(grep: str | None) -> re.Pattern[str] | None:
    try:
        return None if grep is None else re.compile(grep)
    except re.error as error:
        raise UsageError(f"{grep!r} is no regular expression: {error}") from error


class LocalLogStore:
    """Logs at runs/<Flow>/<run_id>/log of a datastore."""

    def __init__(self, layout: Layout, *, durability: str = "process") -> None:
        self._layout = layout
        self._durability = durability
        self._writers: dict[tuple[str, str], LogWriter] = {}

    async def append(self, flow: str, run_id: str, batches: Sequence[LogBatch]) -> None:
        writer = self._writers.get((flow, run_id))
        if writer is None:
            writer = self._writers[flow, run_id] = await in_thread(self._open, flow, run_id)
        writer.append(batches)

    async def page(self, flow: str, run_id: str, query: LogQuery, *, position: int = 0) -> LogPage:
        return await in_thread(self.page_now, flow, run_id, query, position)

    def page_now(self, flow: str, run_id: str, query: LogQuery, position: int = 0) -> LogPage:
        """As `page`, for callers without a loop."""
        try:
            reader = LogReader(str(self._layout.log(flow, run_id)), query)
        except NotFoundError:
            return LogPage((), position)
        try:
            return reader.page(position)
        finally:
            reader.close()

    async def read(
        self, flow: str, run_id: str, query: LogQuery, *, position: int = 0
    ) -> AsyncIterator[LogRecord]:
        while True:
            page = await self.page(flow, run_id, query, position=position)
            for record in page.records:
                yield record
            if page.position <= position or not page.records:
                return
            position, query = page.position, replace(query, tail=None)

    async def aclose(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()

    def _open(self, flow: str, run_id: str) -> LogWriter:
        self._layout.create_run(flow, run_id)
        return LogWriter(str(self._layout.log(flow, run_id)), durability=self._durability)
