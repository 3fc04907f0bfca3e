"""Keeps the directory that goes with an object store small: what was used last stays.

Only blobs go, and each can be fetched again. While a run of this machine has something that is not
in the object store yet, nothing goes: its directory holds the file `unshipped` from before its
first blob until all is there.
"""

import os
from contextlib import suppress

from engine.stores.gate import shut
from engine.stores.gc import stored_files
from engine.stores.layout import Layout

UNSHIPPED = "unshipped"
_BATCH = 200  # removed with the gate shut once


def mark_unshipped(layout: Layout, flow: str, run_id: str) -> None:
    """Say that a run has what is nowhere else. To be called inside the gate."""
    path = layout.run(flow, run_id) / UNSHIPPED
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def mark_shipped(layout: Layout, flow: str, run_id: str) -> None:
    """Say that all of a run is in the object store."""
    with suppress(FileNotFoundError):
        (layout.run(flow, run_id) / UNSHIPPED).unlink()


def is_unshipped(layout: Layout, flow: str, run_id: str) -> bool:
    """Whether a run was driven here and its end is not in the object store."""
    return (layout.run(flow, run_id) / UNSHIPPED).exists()


def trim(layout: Layout, max_bytes: int) -> int:
    """Remove the blobs that were used longest ago, until the others are at most `max_bytes`.

    Returns:
        How many bytes went.

    Raises:
        StoreUnavailableError: the gate cannot be shut.
        StoreAccessError: the file system refuses.
    """
    files = [file for file in stored_files(layout) if file.digest is not None]
    excess = sum(file.size_bytes for file in files) - max_bytes
    if excess <= 0:
        return 0
    files.sort(key=lambda file: max(file.modified_us, _accessed_us(file.path)))
    gone = 0
    while files and gone < excess:
        batch, files = files[:_BATCH], files[_BATCH:]
        with shut(str(layout.root / "runs")):
            if any((layout.root / "runs").glob(f"*/*/{UNSHIPPED}")):
                return gone
            for file in batch:
                if gone >= excess:
                    break
                with suppress(FileNotFoundError):
                    os.unlink(file.path)
                gone += file.size_bytes
    return gone


def _accessed_us(path: str) -> int:
    try:
        return os.stat(path).st_atime_ns // 1000
    except FileNotFoundError:
        return 0
