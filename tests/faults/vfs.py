"""A file system that refuses the n-th call, and one that remembers every call (shim.c).

The shim is compiled once and loaded into a driver, its fork server and all tasks; it sees what
Python and SQLite ask of libc on paths of the datastore. Calls are counted over all processes.
"""

import errno
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
MAKES = "cdml"
"""Calls that make a name: create a file, make a directory, rename, link."""
WRITES = MAKES + "ws"
"""Besides: write, sync."""
OPENS = "cor"
"""Create a file, open one to write, open one to read."""
REFUSALS = {
    "ENOSPC": (errno.ENOSPC, WRITES),
    "EDQUOT": (errno.EDQUOT, WRITES),
    "EROFS": (errno.EROFS, WRITES + "ou"),
    "EMFILE": (errno.EMFILE, OPENS),
    "ENOMEM": (errno.ENOMEM, WRITES + "or"),
}
"""What is refused, and which calls can be refused so."""


@cache
def shim() -> Path:
    """The compiled shim."""
    folder = Path(tempfile.mkdtemp(prefix="aflow-shim-"))
    path = folder / "shim.so"
    command = ["gcc", "-O1", "-Wall", "-shared", "-fPIC", "-o", str(path), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return path


class Calls:
    """The calls on a folder by the processes that get `variables`."""

    def __init__(self, folder: Path, beside: Path, calls: str) -> None:
        self._counter = beside / "calls"
        self._counter.write_bytes(bytes(8))
        self.variables = {
            "LD_PRELOAD": str(shim()),
            "SHIM_FOLDER": str(folder),
            "SHIM_COUNTER": str(self._counter),
            "SHIM_CALLS": calls,
        }

    @property
    def count(self) -> int:
        """How many calls mattered so far."""
        return int.from_bytes(self._counter.read_bytes(), "little")

    def refuse(self, name: str, first: int, last: int | None = None) -> dict[str, str]:
        """Variables that have these calls refused, all from the first on if no last is named."""
        refusal = {"SHIM_ERRNO": str(REFUSALS[name][0]), "SHIM_FROM": str(first)}
        if last is not None:
            refusal["SHIM_TO"] = str(last)
        return {**self.variables, **refusal}


@dataclass(frozen=True)
class Call:
    """One call that changed something: see `record` in shim.c.

    `kind`: c creates a file, d a directory, m renames, l links, u removes, w writes, t cuts, s
    syncs. `offset` is where is written, or the size that is left.
    """

    kind: str
    path: str
    other: str
    offset: int
    data: bytes


_HEAD = struct.Struct("<cHHqQ")


def traced(folder: Path, beside: Path) -> tuple[dict[str, str], Path]:
    """Variables that have every call on a folder recorded, and the file that gets the records."""
    trace = beside / "trace"
    trace.touch()
    calls = Calls(folder, beside, "")
    return {**calls.variables, "SHIM_TRACE": str(trace)}, trace


def read_trace(trace: Path) -> list[Call]:
    """The calls in the order in which they were done."""
    data, at, calls = trace.read_bytes(), 0, []
    while at < len(data):
        kind, one, other, offset, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        held = size if kind == b"w" else 0
        ends = at + one, at + one + other, at + one + other + held
        calls.append(
            Call(
                kind.decode(),
                data[at : ends[0]].decode(),
                data[ends[0] : ends[1]].decode(),
                offset,
                data[ends[1] : ends[2]],
            )
        )
        at = ends[2]
    return calls
