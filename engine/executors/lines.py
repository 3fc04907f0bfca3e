"""Bytes a job wrote -> stamped lines of text. Pure; memory is bounded whatever the job writes.

A line ends at LF, CRLF or a lone CR: a progress bar that redraws itself is many short lines, not
one that grows for ever. Bytes that are not UTF-8 are shown as `\\xNN`. NULs and other control
characters are kept: readers escape them.
"""

import re

LINE_MAX_BYTES = 64 * 1024

Lines = tuple[tuple[int, str], ...]

_CRLF = re.compile(rb"\r+\n")
_CR_AT_LINE_START = re.compile(rb"\n\r+")
_CR = re.compile(rb"\r+")


class LineSplitter:
    """Cuts one stream into lines.

    A line longer than `max_bytes` comes in pieces of at most that size, cut between characters.
    """

    def __init__(self, max_bytes: int = LINE_MAX_BYTES) -> None:
        self._partial = b""
        self._max_bytes = max_bytes
        self._holds_cr = False  # the last byte was a CR: whether LF follows is not known yet

    def feed(self, data: bytes, at_us: int) -> Lines:
        """Take what was read at `at_us`; return the lines that are complete."""
        if self._holds_cr or b"\r" in data:
            data = self._without_cr(data)
        head, newline, tail = data.rpartition(b"\n")
        if not newline:
            self._partial += tail
            texts = []
        else:
            head = self._partial + head
            self._partial = tail
            texts = self._decode(head)
        if len(self._partial) >= self._max_bytes:
            *pieces, self._partial = self._pieces(self._partial)
            texts += [_text(piece) for piece in pieces]
        return tuple([(at_us, text) for text in texts])

    def flush(self, at_us: int) -> Lines:
        """Return the last line, if the stream ended without a newline."""
        rest, self._partial = self._partial, b""
        return ((at_us, _text(rest)),) if rest else ()

    def _without_cr(self, data: bytes) -> bytes:
        """Turn CRLF and CR into LF; a CR at the start of a line ends nothing."""
        if self._holds_cr:
            data = b"\r" + data
        self._holds_cr = data.endswith(b"\r")
        data = _CRLF.sub(b"\n", data.rstrip(b"\r") if self._holds_cr else data)
        if not self._partial:
            data = data.lstrip(b"\r")
        return _CR.sub(b"\n", _CR_AT_LINE_START.sub(b"\n", data))

    def _decode(self, head: bytes) -> list[str]:
        if len(head) < self._max_bytes:
            return _text(head).split("\n")
        texts = []
        for line in head.split(b"\n"):
            if len(line) <= self._max_bytes:
                texts.append(_text(line))
            else:
                texts += [_text(piece) for piece in self._pieces(line)]
        return texts

    def _pieces(self, line: bytes) -> list[bytes]:
        """Cut so that all but the last piece are as long as may be; the last may be empty."""
        pieces = []
        at = 0
        while len(line) - at >= self._max_bytes:
            stop = _character_border(line, at + self._max_bytes)
            pieces.append(line[at:stop])
            at = stop
        return [*pieces, line[at:]]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _character_border(data: bytes, cut: int) -> int:
    """The last place at or before `cut` that does not split a UTF-8 character."""
    for back in range(4):
        if cut - back == len(data) or data[cut - back] & 0xC0 != 0x80:
            return cut - back
    return cut  # not UTF-8 anyway
