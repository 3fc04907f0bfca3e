"""How much memory a process and its descendants hold, seen from outside."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

_SAMPLE_S = 0.03
_PAGE_BYTES = 4096


class TreeWatcher(threading.Thread):
    """Samples, until process `pid` is gone, the resident memory of it and all its descendants.

    `peak_bytes` is the largest sum of a sample. Pages that forked processes share count for each of
    them. Without `counts_root` the process itself, which only starts others, is left out.
    """

    def __init__(self, pid: int, *, counts_root: bool = True) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._pid = pid
        self._counts_root = counts_root

    def run(self) -> None:
        while (root_bytes := resident_bytes(self._pid)) > 0:
            total = root_bytes if self._counts_root else 0
            total += sum(map(resident_bytes, descendants(self._pid)))
            self.peak_bytes = max(self.peak_bytes, total)
            time.sleep(_SAMPLE_S)


def resident_bytes(pid: int) -> int:
    """0 for a process that has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (FileNotFoundError, ProcessLookupError):
        return 0


def descendants(pid: int) -> Iterator[int]:
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in listed.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            yield child
            yield from descendants(child)
