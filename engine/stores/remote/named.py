"""How sure it is that the blobs of a manifest are in the object store. Pure."""

from collections.abc import Callable, Sequence
from enum import Enum


class There(Enum):
    """What is known of the blobs before anybody has asked."""

    UNKNOWN = "unknown"  # made by this run: mostly new
    LIKELY = "likely"  # asked for before it is sent: a package of code that seldom changes
    CERTAIN = "certain"  # a manifest that is committed names them


Named = Callable[[bytes], Sequence[tuple[bytes, There]]]
"""A journal's payload to the packed manifests in it, each with what is known of its blobs."""
