"""Bytes and descriptors on their way to a zygote, without blocking the loop."""

import array
import asyncio
import contextlib
import socket
from collections import deque

from msgspec import Struct, field

from engine.executors import wire

_MESSAGE_BYTES = 64 * 1024  # gathers small frames; a larger one goes alone


class _Message(Struct):
    """Frames that are sent at once, and the descriptors that go with their first byte."""

    data: bytearray = field(default_factory=bytearray)
    fds: list[int] = field(default_factory=list)

    def has_room(self, size_bytes: int, fds: int) -> bool:
        most = wire.FDS_PER_LAUNCH * wire.LAUNCHES_PER_MESSAGE
        return len(self.data) + size_bytes <= _MESSAGE_BYTES and len(self.fds) + fds <= most


class Outbox:
    """Sends in order. Descriptors have to stay open until their frame is sent."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._loop: asyncio.AbstractEventLoop | None = None
        self._messages: deque[_Message] = deque()
        self._is_waiting = False
        self._is_begun = False  # the first message is partly sent: nothing may join it

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def put(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Queue a frame; `flush` sends it."""
        last = self._messages[-1] if self._messages else None
        is_closed = last is None or (self._is_begun and len(self._messages) == 1)
        if last is None or is_closed or not last.has_room(len(data), len(fds)):
            last = _Message()
            self._messages.append(last)
        last.data += data
        last.fds += fds

    def flush(self) -> None:
        """Send what the socket takes; the rest follows when it takes more."""
        while self._messages:
            message = self._messages[0]
            try:
                sent = self._send(message)
            except BlockingIOError:
                self._wait()
                return
            except (BrokenPipeError, ConnectionResetError):
                self.close()  # the end of the control stream tells the executor
                return
            del message.data[:sent]
            self._is_begun = bool(message.data)
            if not message.data:
                self._messages.popleft()
        self._stop_waiting()

    def close(self) -> None:
        """Forget what is not sent."""
        self._stop_waiting()
        self._messages.clear()

    def _send(self, message: _Message) -> int:
        if not message.data:
            return 0
        if not message.fds:
            return self._control.send(message.data)
        fds = array.array("i", message.fds)
        sent = self._control.sendmsg([message.data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        message.fds.clear()
        return sent

    def _wait(self) -> None:
        if not self._is_waiting and self._loop is not None:
            self._is_waiting = True
            self._loop.add_writer(self._control.fileno(), self.flush)

    def _stop_waiting(self) -> None:
        if self._is_waiting and self._loop is not None:
            self._is_waiting = False
            with contextlib.suppress(ValueError):  # the socket is closed already
                self._loop.remove_writer(self._control.fileno())
