"""Frames between an executor and its zygote, over a stream socket. Pure: bytes in, bytes out.

A frame is `<u32 payload length><u8 kind><u32 token>` and the payload; little-endian. The token is
the executor's number for a job. Descriptors ride beside the bytes (SCM_RIGHTS), two for each
LAUNCH, in the order of the frames. Nothing here is pickled, and lengths are capped, so that a
zygote, which has run user code, cannot make the executor run or swallow anything.
"""

import array
import socket
import struct
from collections.abc import Sequence
from enum import IntEnum

from msgspec import Struct

HEAD = struct.Struct("<IBI")
STARTED = struct.Struct("<i")  # pid
EXITED = struct.Struct("<iQ")  # wait status, peak resident KiB
KILL = struct.Struct("<d")  # grace in seconds between SIGTERM and SIGKILL; 0 skips SIGTERM
REFUSED = struct.Struct("<i")  # errno of fork
TOKEN = struct.Struct("<I")  # heads every report datagram

FDS_PER_LAUNCH = 2
LAUNCHES_PER_MESSAGE = 8
"""16 descriptors in flight at once, of the 253 that Linux takes (SCM_MAX_FD): each child has to
close those of its unborn siblings."""

REPORT_MAX_BYTES = 128 * 1024
"""Largest report: one datagram, under Linux's default send buffer of 212,992 bytes."""

REPLY_MAX_BYTES = 1024 * 1024
"""Largest frame that an executor takes from a zygote."""

RECEIVE_BYTES = 64 * 1024
ANCILLARY_BYTES = 1024  # room for the descriptors of one message, and then some
_FD_SIZE = array.array("i").itemsize


Ancillary = Sequence[tuple[int, int, bytes]]
"""What came beside the bytes, as `socket.recvmsg` gives it."""


class Kind(IntEnum):
    """To the zygote: BOOT, LAUNCH, KILL_JOB. From it: the others."""

    BOOT = 1
    LAUNCH = 2
    KILL_JOB = 3
    READY = 4
    BOOT_FAILED = 5
    JOB_STARTED = 6
    JOB_EXITED = 7
    JOB_REFUSED = 8


class WireFrame(Struct, frozen=True):
    kind: int
    token: int
    payload: bytes


def encode(kind: Kind, token: int = 0, payload: bytes = b"") -> bytes:
    return HEAD.pack(len(payload), kind, token) + payload


def unpack_fds(ancillary: bytes) -> list[int]:
    """The descriptors of one SCM_RIGHTS control message."""
    fds = array.array("i")
    fds.frombytes(ancillary[: len(ancillary) - len(ancillary) % _FD_SIZE])
    return list(fds)


_CREDENTIALS = struct.Struct("<iII")  # pid, uid, gid: struct ucred of unix(7)
CREDENTIALS_BYTES = socket.CMSG_SPACE(_CREDENTIALS.size)


def sender(ancillary: Ancillary) -> int | None:
    """The process that sent a report, as the kernel says; None where it does not say (macOS).

    Source: unix(7), SCM_CREDENTIALS: with SO_PASSCRED every message carries its sender's ids.
    """
    for _level, _kind, data in ancillary:
        if len(data) == _CREDENTIALS.size:
            pid: int = _CREDENTIALS.unpack(data)[0]
            return pid
    return None


class FrameReader:
    """Cuts a stream of bytes into frames.

    Raises:
        ValueError: a frame is longer than `max_bytes`.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._buffer = bytearray()
        self._max_bytes = max_bytes

    def feed(self, data: bytes) -> list[WireFrame]:
        """Add bytes; return the frames that are now whole."""
        buffer = self._buffer
        buffer += data
        frames = []
        at = 0
        while len(buffer) - at >= HEAD.size:
            length, kind, token = HEAD.unpack_from(buffer, at)
            if self._max_bytes is not None and length > self._max_bytes:
                raise ValueError(f"a frame of {length} bytes; {self._max_bytes} is the most")
            stop = at + HEAD.size + length
            if len(buffer) < stop:
                break
            frames.append(WireFrame(kind, token, bytes(buffer[at + HEAD.size : stop])))
            at = stop
        del buffer[:at]
        return frames
