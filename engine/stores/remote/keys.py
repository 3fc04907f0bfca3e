"""Where things lie in an object store. Pure. Blobs have the keys of engine.stores.cas."""

from engine.ids import safe_name
from engine.stores.remote.segments import segment_name

JOURNAL, LOG = "journal", "log"
STATUS, TAGS = "status/", "tags/"
GATES = "gates/"
CLOCK = "clock"
"""The key of what readers put to learn the store's time from its stamp."""


def run_prefix(flow: str, run_id: str) -> str:
    """What the keys of a run's journal and log begin with.

    Raises:
        UnsafeNameError: a name is not safe.
    """
    return f"runs/{safe_name(flow, what='flow')}/{safe_name(run_id, what='run id')}/"


def segment_key(flow: str, run_id: str, file: str, start: int) -> str:
    """The key of the segment of `file` ("journal" or "log") that begins at `start`."""
    return f"{run_prefix(flow, run_id)}{file}/{segment_name(start)}"


def status_key(flow: str, run_id: str) -> str:
    """The key of what lists a run; its time says when the run's driver was last alive."""
    return f"{STATUS}{safe_name(flow, what='flow')}/{safe_name(run_id, what='run id')}"


def gate_key(token: str) -> str:
    """The key of one collection's gate; `token` is drawn by it."""
    return f"{GATES}{token}"


def tags_key(flow: str, run_id: str) -> str:
    """The key of a run's tags, there once they were changed."""
    return f"{TAGS}{safe_name(flow, what='flow')}/{safe_name(run_id, what='run id')}"
