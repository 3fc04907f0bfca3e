"""Makes a task's output safe to show: nothing that it prints can drive the terminal.

Only colour (SGR) may pass, and only where colour is wanted. Other escape sequences are dropped, and
what is left of control, bidirectional and line-separating characters is shown as an escape. The
common line, all printable, costs one call of C code.
"""

import re

_SGR = re.compile(r"\x1b\[[0-9;:]*m")
_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: moves, clears, modes, and SGR
    r"|\x9b[0-?]*[ -/]*[@-~]"  # CSI in its 8-bit form
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f]).*?(?:\x07|\x1b\\|\x9c)"  # OSC, DCS, SOS, PM, APC
    r"|\x1b[ -/]+[0-~]"  # character sets and the like
    r"|\x1b[0-9=>NOZ-\\a-z|}~]"  # two-character escapes
)
_UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff"
    "\ud800-\udfff]"
)
_RESET = "\x1b[0m"


def safe(text: str, *, color: bool = False) -> str:
    """One line, safe to show after a prefix of ours.

    A line that overwrites itself with carriage returns, as a progress bar does, is shown as it
    would have been left. With `color`, SGR sequences pass, and a reset follows the last of them.
    """
    if text.isprintable():
        return text
    if "\r" in text:
        segments = [part for part in text.split("\r") if part]
        text = segments[-1] if segments else ""
    if not color:
        return _UNSAFE.sub(_escaped, _SEQUENCE.sub("", text))
    kept = _SEQUENCE.sub(lambda m: m[0] if _SGR.fullmatch(m[0]) else "", text)
    if "\x1b" not in kept:
        return _UNSAFE.sub(_escaped, kept)
    pieces: list[str] = []
    end = 0
    for match in _SGR.finditer(kept):  # what is between the SGRs may hold no escape at all
        pieces += (_UNSAFE.sub(_escaped, kept[end : match.start()]), match[0])
        end = match.end()
    pieces.append(_UNSAFE.sub(_escaped, kept[end:]))
    return "".join(pieces) + (_RESET if end else "")


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
