"""The output pipes of many jobs behind one descriptor that the event loop watches.

Each job gets fresh pipes: one that an earlier job could still hold would mix their lines. All of
them sit in one kernel queue (epoll, kqueue), which is itself pollable; a reader on the loop for
each took 40 us a job. We keep a write end open until the job has ended, so a pipe never tells of
its end: the zygote does that, and a job that prints nothing wakes nobody.
"""

import os
import selectors
from collections.abc import Callable

from msgspec import Struct, field

from engine.executors.lines import Lines, LineSplitter

READ_BYTES = 64 * 1024
TURN_BYTES = 512 * 1024  # then the loop gets its turn: some 5 ms of splitting
DRAIN_MAX_BYTES = 1024 * 1024  # the most a pipe can hold for an unprivileged user

Sink = Callable[[int, str, Lines], None]
"""Takes the lines of a stream: token, "stdout" or "stderr", lines."""


class _Pipe(Struct, eq=False):
    fd: int
    write_fd: int
    token: int
    stream: str
    lines: LineSplitter = field(default_factory=LineSplitter)


class OutputPipes:
    """Reads what jobs write; `sink` gets the lines, `clock` stamps them (us since 1970)."""

    def __init__(self, sink: Sink, clock: Callable[[], int]) -> None:
        self._sink = sink
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._pipes: dict[int, tuple[_Pipe, _Pipe]] = {}

    def fileno(self) -> int:
        """Readable when some pipe is."""
        return self._selector.fileno()

    def open(self, token: int) -> tuple[int, int]:
        """Make a job's two pipes; return the write ends, which stay ours.

        Raises:
            OSError: there are no descriptors left; nothing is kept.
        """
        ends = [*os.pipe()]
        try:
            ends += os.pipe()
        except OSError:
            for fd in ends:
                os.close(fd)
            raise
        pipes = _Pipe(ends[0], ends[1], token, "stdout"), _Pipe(ends[2], ends[3], token, "stderr")
        for pipe in pipes:
            os.set_blocking(pipe.fd, False)
            self._selector.register(pipe.fd, selectors.EVENT_READ, pipe)
        self._pipes[token] = pipes
        return ends[1], ends[3]

    def read_some(self) -> None:
        """Read from each pipe that has something, within the budget of one turn."""
        left = TURN_BYTES
        for key, _ in self._selector.select(0):
            left -= self._read(key.data)
            if left <= 0:
                return  # what was not reached is still readable, and comes first next time

    def finish(self, token: int) -> None:
        """Read what is left of a job that has ended, and close its pipes.

        Some other process may hold a write end, and write, for ever: what fits into a pipe is read.
        """
        for pipe in self._pipes.pop(token):
            left = DRAIN_MAX_BYTES
            while left > 0 and (count := self._read(pipe)):
                left -= count
            self._close(pipe)
            if rest := pipe.lines.flush(self._clock()):
                self._sink(token, pipe.stream, rest)

    def close(self) -> None:
        for pipes in self._pipes.values():
            for pipe in pipes:
                self._close(pipe)
        self._pipes.clear()
        self._selector.close()

    def _read(self, pipe: _Pipe) -> int:
        """Read once; return the number of bytes, 0 if there were none."""
        try:
            data = os.read(pipe.fd, READ_BYTES)
        except BlockingIOError:
            return 0
        if lines := pipe.lines.feed(data, self._clock()):
            self._sink(pipe.token, pipe.stream, lines)
        return len(data)

    def _close(self, pipe: _Pipe) -> None:
        self._selector.unregister(pipe.fd)
        os.close(pipe.fd)
        os.close(pipe.write_fd)
