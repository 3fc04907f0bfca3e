"""The output pipes of many jobs behind one descriptor that the event loop watches.

Each job gets fresh pipes: one that an earlier job could still hold would mix their lines. All of
them sit in one kernel queue (epoll, kqueue), which is itself pollable, so a job costs the event
loop nothing but its bytes; a reader of its own per pipe took 40 us a job.
"""

import os
import selectors
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.executors.lines import Lines, LineSplitter

READ_BYTES = 64 * 1024
TURN_BYTES = 512 * 1024  # then the loop gets its turn: some 5 ms of splitting
DRAIN_MAX_BYTES = 1024 * 1024  # the most a pipe can hold for an unprivileged user

Sink = Callable[[int, str, Lines], None]
"""Takes the lines of a stream: token, "stdout" or "stderr", lines."""


@dataclass(slots=True, eq=False)
class _Pipe:
    fd: int
    token: int
    stream: str
    lines: LineSplitter = field(default_factory=LineSplitter)
    is_open: bool = True


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
        """Make a job's two pipes; return the write ends, which are the caller's to close.

        Raises:
            OSError: there are no descriptors left; nothing is kept.
        """
        out_read, out_write = os.pipe()
        try:
            err_read, err_write = os.pipe()
        except OSError:
            os.close(out_read)
            os.close(out_write)
            raise
        pipes = _Pipe(out_read, token, "stdout"), _Pipe(err_read, token, "stderr")
        for pipe in pipes:
            os.set_blocking(pipe.fd, False)
            self._selector.register(pipe.fd, selectors.EVENT_READ, pipe)
        self._pipes[token] = pipes
        return out_write, err_write

    def read_some(self) -> None:
        """Read from each pipe that has something, within the budget of one turn."""
        left = TURN_BYTES
        for key, _ in self._selector.select(0):
            left -= max(0, self._read(key.data))
            if left <= 0:
                return  # what was not reached is still readable, and comes first next time

    def finish(self, token: int) -> None:
        """Read what is left of a job that has ended, and close its pipes.

        Some other process may hold a write end for ever, so the end of the stream is not awaited.
        """
        for pipe in self._pipes.pop(token):
            left = DRAIN_MAX_BYTES
            while pipe.is_open and left > 0:
                count = self._read(pipe)
                if count < 0:
                    break
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
        """Read once; return the number of bytes, or -1 if there was nothing to read yet."""
        try:
            data = os.read(pipe.fd, READ_BYTES)
        except BlockingIOError:
            return -1
        if not data:
            self._close(pipe)
            return 0
        if lines := pipe.lines.feed(data, self._clock()):
            self._sink(pipe.token, pipe.stream, lines)
        return len(data)

    def _close(self, pipe: _Pipe) -> None:
        if pipe.is_open:
            pipe.is_open = False
            self._selector.unregister(pipe.fd)
            os.close(pipe.fd)
