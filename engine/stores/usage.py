"""Who takes how much room: bytes of blobs, shared ones told from own ones. Pure."""

from collections.abc import Collection, Mapping

from msgspec import Struct


class Share(Struct, frozen=True):
    """`own_bytes` would be free if this one went; `shared_bytes` others refer to as well."""

    own_bytes: int
    shared_bytes: int


class Shares:
    """Counts, for each of many, the blobs that it alone refers to and those that others do too.

    Memory is one entry per blob. A digest without a size (a blob that is missing) counts as 0.
    """

    def __init__(self, sizes: Mapping[bytes, int]) -> None:
        self._sizes = sizes
        self._owners: dict[bytes, str | None] = {}
        self._totals: dict[str, int] = {}

    def add(self, name: str, digests: Collection[bytes]) -> None:
        """Count `name`, once, with the distinct digests that it refers to."""
        self._totals[name] = sum(self._sizes.get(digest, 0) for digest in digests)
        for digest in digests:
            self._owners[digest] = None if digest in self._owners else name

    def of_each(self) -> dict[str, Share]:
        """What each takes, in the order in which they were added."""
        own = dict.fromkeys(self._totals, 0)
        for digest, owner in self._owners.items():
            if owner is not None:
                own[owner] += self._sizes.get(digest, 0)
        return {name: Share(own[name], total - own[name]) for name, total in self._totals.items()}

    def unreferenced_bytes(self) -> int:
        """The size of the blobs that nobody refers to."""
        return sum(size for digest, size in self._sizes.items() if digest not in self._owners)
