"""Files of frames, appended to by one process and read by many: journals and logs.

A file is a magic of four bytes, then frames: u32 length, u32 CRC-32 of the length and the payload,
payload; little-endian. A frame's offset is its name. The CRC takes the length in, so a tail of
zeros, which a loss of power can leave, is no frame.

A torn tail (a frame cut by a crash) ends the file. What is damaged with a sound frame after it was
once acknowledged, so that is an error; only who asks for what is left, and is told what is not, may
pass over it. A seal, the length and the CRC of a whole file, tells the rest: frames that changed
places or are gone from the end.
"""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Self

from msgspec import Struct

from engine import crashpoints
from engine.crashpoints import AppendPoints
from engine.errors import JournalDamagedError, NotFoundError, StoreError
from engine.stores.access import access_error
from engine.stores.directory import sync_directory

MAGIC_BYTES = 4
FRAME_MAX_BYTES = 256 << 20
HEAD_BYTES = 8

_HEAD = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
_WINDOW_BYTES = 1 << 20
_PEEK_BYTES = 4096
_SEARCH_BYTES = 8 << 20  # how far behind damage a sound frame is looked for; no tail is longer


class Torn(Struct, frozen=True):
    """A stretch that is no frame: `size_bytes` from `offset`, to the end of the file or a frame."""

    offset: int
    size_bytes: int


def pack_frame(payload: bytes) -> bytes:
    """A frame as it lies in the file.

    Raises:
        StoreError: the payload is larger than FRAME_MAX_BYTES.
    """
    if len(payload) > FRAME_MAX_BYTES:
        raise StoreError(f"a frame of {len(payload):,} bytes is more than {FRAME_MAX_BYTES:,}")
    length = _LENGTH.pack(len(payload))
    return length + _LENGTH.pack(zlib.crc32(payload, zlib.crc32(length))) + payload


class FrameWriter:
    """Appends frames. The caller sees to it that there is one writer at a time.

    Opening a file that is there cuts its torn tail off, and `torn` says what was cut.

    Raises:
        JournalDamagedError: what is there is damaged before its tail.
        StoreAccessError: the file system refuses.
    """

    def __init__(
        self,
        path: str,
        magic: bytes,
        *,
        durability: str = "process",
        points: AppendPoints = crashpoints.LOG,
    ) -> None:
        self.path = path
        self.torn: Torn | None = None
        self._points = points
        self._power = durability == "power"
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise access_error(error, path, "write") from error
        self._crc = 0
        try:
            self._end = self._begin(magic)
        except BaseException:
            os.close(self._fd)
            raise

    def _begin(self, magic: bytes) -> int:
        head = os.pread(self._fd, MAGIC_BYTES, 0)
        if len(head) == MAGIC_BYTES:
            with FrameReader(self.path, magic) as reader:
                end = reader.end()
                self.torn = reader.torn
            os.ftruncate(self._fd, end)
            self._crc = _crc_of(self._fd, end)
            return end
        if not magic.startswith(head):
            raise StoreError(f"{self.path} does not begin as it should")
        self._end = 0
        self._write(magic)
        if self._power:
            os.fsync(self._fd)
            sync_directory(os.path.dirname(self.path))
        return MAGIC_BYTES

    @property
    def end(self) -> int:
        """Where the next frame will lie."""
        return self._end

    @property
    def seal(self) -> tuple[int, int]:
        """The length of the file, and the CRC-32 of all of it."""
        return self._end, self._crc

    def append(self, payload: bytes) -> int:
        """Append one frame in one write; return its offset.

        Raises:
            StoreAccessError: it could not be written whole; nothing of it is left.
        """
        offset = self._end
        self._write(pack_frame(payload))
        return offset

    def append_many(self, payloads: Sequence[bytes]) -> list[int]:
        """Append frames in one write, all or none; return their offsets."""
        frames = [pack_frame(payload) for payload in payloads]
        offsets = []
        offset = self._end
        for frame in frames:
            offsets.append(offset)
            offset += len(frame)
        self._write(b"".join(frames))
        return offsets

    def sync(self) -> None:
        """Make what was appended survive a loss of power, if durability is "power".

        Raises:
            StoreAccessError: the file system refuses; what was appended may be lost.
        """
        if self._power:
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                raise access_error(error, self.path, "sync") from error

    def close(self) -> None:
        if self._fd >= 0:
            try:
                self.sync()
            finally:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        points = self._points
        points.before.passed()
        try:
            if points.half.is_due():
                os.pwrite(self._fd, data[: len(data) // 2], self._end)
                crashpoints.crash()
            done = os.pwrite(self._fd, data, self._end)
            while done < len(data):
                done += os.pwrite(self._fd, data[done:], self._end + done)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, self._end)
            raise access_error(error, self.path, "append to", len(data)) from error
        self._end += done
        self._crc = zlib.crc32(data, self._crc)
        points.after.passed()


class FrameReader:
    """Reads frames by offset or in order, also while they are being appended.

    After a scan `torn` says what the file ended with, if it was no frame, and `position` where a
    later scan goes on. With `is_tolerant`, a scan goes on behind what is damaged, and `passed_over`
    says what that was.

    Raises:
        NotFoundError: there is no such file.
        StoreError: the file does not begin with `magic`.
        StoreAccessError: the file system refuses.
    """

    def __init__(self, path: str, magic: bytes, *, is_tolerant: bool = False) -> None:
        self.path = path
        self.torn: Torn | None = None
        self.passed_over: list[Torn] = []
        self._is_tolerant = is_tolerant
        self.position = MAGIC_BYTES
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFoundError(
                f"there is no {path}", hint="`aflow fsck` lists what is missing"
            ) from error
        except OSError as error:
            raise access_error(error, path, "read") from error
        found = os.pread(self._fd, MAGIC_BYTES, 0)
        if not magic.startswith(found):
            self.close()
            raise StoreError(  # a shorter one is a file whose writer was killed as it began
                f"{path} begins with {found!r}, not with {magic!r}",
                hint="use the aflow that wrote it, or a later one",
            )

    @property
    def has_magic(self) -> bool:
        """Whether the file is as long as its magic, at least."""
        return os.fstat(self._fd).st_size >= MAGIC_BYTES

    def read(self, offset: int) -> bytes:
        """The payload of the frame at `offset`.

        Raises:
            JournalDamagedError: no sound frame lies there.
        """
        window = os.pread(self._fd, _PEEK_BYTES, offset)
        payload = self._payload(window, 0, offset)
        if payload is None:
            raise JournalDamagedError(self.path, offset=offset, problem="no sound frame is there")
        return payload

    def fits(self, size_bytes: int, crc: int) -> bool:
        """Whether the file begins with the bytes that this seal was made of."""
        return os.fstat(self._fd).st_size >= size_bytes and _crc_of(self._fd, size_bytes) == crc

    def scan(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, payload) of each frame from `start`: a frame's offset, or 0 for all.

        Raises:
            JournalDamagedError: a frame is damaged, and a sound one follows.
        """
        self.position = base = max(start, MAGIC_BYTES)
        self.torn = None
        self.passed_over = []
        window = b""
        while True:
            if len(window) - (self.position - base) < HEAD_BYTES:
                base = self.position
                window = os.pread(self._fd, _WINDOW_BYTES, base)
            payload = self._payload(window, self.position - base, self.position)
            if payload is None:
                after = self._next_sound()
                if after is None:
                    return
                if after > self.position:
                    self._pass_over(after)
                window = b""  # it was being written: read it again
                continue
            offset = self.position
            self.position += HEAD_BYTES + len(payload)
            yield offset, payload

    def end(self) -> int:
        """Scan to the end, and return where the last frame ends."""
        for _ in self.scan(self.position):
            pass
        return self.position

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _payload(self, window: bytes, at: int, offset: int) -> bytes | None:
        """The payload of the frame `at` in `window`, or else in the file; None if unsound."""
        if len(window) - at < HEAD_BYTES:
            return None
        length, crc = _HEAD.unpack_from(window, at)
        if length > FRAME_MAX_BYTES:
            return None
        payload = window[at + HEAD_BYTES : at + HEAD_BYTES + length]
        if len(payload) < length:
            payload = self._pread(length, offset + HEAD_BYTES)
        if zlib.crc32(payload, zlib.crc32(_LENGTH.pack(length))) != crc:
            return None
        return payload if len(payload) == length else None

    def _pread(self, length: int, offset: int) -> bytes:
        if offset + length > os.fstat(self._fd).st_size:
            return b""  # a length that damage made up; do not reserve that much
        return os.pread(self._fd, length, offset)

    def _next_sound(self) -> int | None:
        """Where the next sound frame lies: at `position`, if it has become one meanwhile.

        None, with `torn` set, if nothing sound follows.
        """
        left = os.fstat(self._fd).st_size - self.position
        if left <= 0:
            return None
        tail = os.pread(self._fd, _SEARCH_BYTES, self.position)
        after = self._sound_after(tail)
        # Only now look again: a writer finishes a frame before it begins the one after it.
        again = os.pread(self._fd, _PEEK_BYTES, self.position)
        if self._payload(again, 0, self.position) is not None:
            return self.position
        if after is None:
            if left > _SEARCH_BYTES:
                raise self._damaged(f"{left:,} bytes follow")
            self.torn = Torn(self.position, left)
        return after

    def _pass_over(self, after: int) -> None:
        if not self._is_tolerant:
            raise self._damaged(f"one follows at {after:,}")
        self.passed_over.append(Torn(self.position, after - self.position))
        self.position = after

    def _damaged(self, but: str) -> JournalDamagedError:
        problem = f"no sound frame is there, but {but}"
        return JournalDamagedError(self.path, offset=self.position, problem=problem)

    def _sound_after(self, tail: bytes) -> int | None:
        """The first sound frame behind the start of `tail`.

        What the unsound frame says of its length comes first: a value inside of it may look like a
        frame.
        """
        claimed = HEAD_BYTES + _LENGTH.unpack_from(tail)[0] if len(tail) >= HEAD_BYTES else 0
        for at in chain((claimed or 1,), range(1, len(tail) - HEAD_BYTES + 1)):
            if at + HEAD_BYTES > len(tail):
                continue
            length = _LENGTH.unpack_from(tail, at)[0]
            is_whole = at + HEAD_BYTES + length <= len(tail)
            if is_whole and self._payload(tail, at, self.position + at) is not None:
                return self.position + at
        return None


def _crc_of(fd: int, size_bytes: int) -> int:
    crc = offset = 0
    while offset < size_bytes:
        data = os.pread(fd, min(_WINDOW_BYTES, size_bytes - offset), offset)
        if not data:
            break
        crc = zlib.crc32(data, crc)
        offset += len(data)
    return crc
