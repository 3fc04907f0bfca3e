"""Named instants around every commit, at which a test has the process killed (FAULTS R-02).

`AFLOW_CRASH_AT=NAME:N`, read by engine.config, arms one point: the process that passes it as the
N-th of a run and all its forked tasks gets SIGKILL there. Unarmed, a passage is one comparison:
30 ns, of which 20 are the call, against the 3 us of the cheapest commit. Imports nothing else:
tasks and `--version` have it, too.
"""

import os
from typing import NoReturn

PASSAGES_MAX = 60_000
_SIGKILL = 9  # POSIX; `signal` would be an import at every start
_PASS, _CRASH = b".", b"!"


class CrashPoint:
    """One instant. Armed, it holds a pipe with a byte for each passage to come.

    A read takes one byte whatever the number of readers, so processes that were forked after the
    arming count together. An emptied pipe lets everybody pass.
    """

    __slots__ = ("_passages", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._passages = -1

    def is_due(self) -> bool:
        """Count a passage; whether the process has to crash now."""
        return self._passages >= 0 and os.read(self._passages, 1) == _CRASH

    def passed(self) -> None:
        """Count a passage, and crash if it is the one."""
        if self._passages >= 0 and self.is_due():
            crash()

    def arm(self, passage: int) -> None:
        """Crash at this passage from now on, the first being 1.

        Raises:
            ValueError: `passage` is not in 1 to PASSAGES_MAX.
        """
        if not 1 <= passage <= PASSAGES_MAX:
            raise ValueError(f"a passage is 1 to {PASSAGES_MAX:,}, not {passage}")
        self.disarm()
        self._passages, counts = os.pipe()
        os.write(counts, _PASS * (passage - 1) + _CRASH)
        os.close(counts)

    def disarm(self) -> None:
        if self._passages >= 0:
            os.close(self._passages)
            self._passages = -1


def crash() -> NoReturn:
    """Die as by `kill -9`."""
    os.kill(os.getpid(), _SIGKILL)
    raise AssertionError("SIGKILL did not kill")


class AppendPoints:
    """Before an append, with half of its bytes in the file, and after it."""

    __slots__ = ("after", "before", "half")

    def __init__(self, name: str) -> None:
        self.before = CrashPoint(f"{name}.before-append")
        self.half = CrashPoint(f"{name}.half-append")
        self.after = CrashPoint(f"{name}.after-append")


DATASTORE_BEFORE_FORMAT = CrashPoint("datastore.before-format")

BLOB_BEFORE_WRITE = CrashPoint("blob.before-write")
BLOB_HALF_WRITTEN = CrashPoint("blob.half-written")
BLOB_BEFORE_RENAME = CrashPoint("blob.before-rename")
BLOB_AFTER_RENAME = CrashPoint("blob.after-rename")

LEASE_BEFORE_LOCK = CrashPoint("lease.before-lock")
LEASE_BEFORE_HOLDER = CrashPoint("lease.before-holder")
LEASE_AFTER_HOLDER = CrashPoint("lease.after-holder")

JOURNAL = AppendPoints("journal")
LOG = AppendPoints("log")

METADATA_AFTER_FILE = CrashPoint("metadata.after-file")
METADATA_BEFORE_BEGIN = CrashPoint("metadata.before-begin")
METADATA_BEFORE_COMMIT = CrashPoint("metadata.before-commit")
METADATA_AFTER_COMMIT = CrashPoint("metadata.after-commit")

RUN_BEFORE_DONE = CrashPoint("run.before-done")
RUN_AFTER_DONE = CrashPoint("run.after-done")

SEGMENT_BEFORE_PUT = CrashPoint("segment.before-put")
SEGMENT_AFTER_PUT = CrashPoint("segment.after-put")

POINTS = {
    point.name: point
    for point in (
        DATASTORE_BEFORE_FORMAT,
        BLOB_BEFORE_WRITE,
        BLOB_HALF_WRITTEN,
        BLOB_BEFORE_RENAME,
        BLOB_AFTER_RENAME,
        LEASE_BEFORE_LOCK,
        LEASE_BEFORE_HOLDER,
        LEASE_AFTER_HOLDER,
        *(JOURNAL.before, JOURNAL.half, JOURNAL.after),
        *(LOG.before, LOG.half, LOG.after),
        METADATA_AFTER_FILE,
        METADATA_BEFORE_BEGIN,
        METADATA_BEFORE_COMMIT,
        METADATA_AFTER_COMMIT,
        RUN_BEFORE_DONE,
        RUN_AFTER_DONE,
    )
}
"""Every point of a local datastore by its name."""

REMOTE_POINTS = {point.name: point for point in (SEGMENT_BEFORE_PUT, SEGMENT_AFTER_PUT)}
"""Those that only a run with an object store passes."""
