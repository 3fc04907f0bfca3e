"""What is remembered of a directory that was packaged, so that an unchanged one is not read again.

A hint, never a truth: whatever does not fit is treated as if nothing were remembered.
"""

from typing import Any, Self

import msgpack
from msgspec import Struct, field
from msgspec.structs import astuple

from engine.package.tree import Known, Stamp, Tree

VERSION = 1
RACY_NS = 2_000_000_000
"""The coarsest clock that file systems write times by. A file that was written to this short before
it was read may have been written to again and have the same stamp, so it is read once more."""


class Remembered(Struct, frozen=True):
    """A look at `root`, taken at `looked_ns`, and `package`, what was made of it."""

    root: str = ""
    suffixes: tuple[str, ...] = ()
    looked_ns: int = 0
    files: dict[str, Stamp] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    known: Known = field(default_factory=Known)
    package: bytes = b""

    def is_of(self, tree: Tree) -> bool:
        """Whether `package` is that of `tree`, too."""
        return (
            bool(self.package)
            and self.files == tree.files
            and self.links == tree.links
            and all(s.ctime_ns < self.looked_ns - RACY_NS for s in self.files.values())
        )

    @classmethod
    def of(cls, tree: Tree, suffixes: tuple[str, ...], looked_ns: int, package: bytes) -> Self:
        files, links = dict(tree.files), dict(tree.links)
        return cls(tree.root, suffixes, looked_ns, files, links, tree.known, package)

    def pack(self) -> bytes:
        wire = {
            "v": VERSION,
            "root": self.root,
            "suffixes": list(self.suffixes),
            "at": self.looked_ns,
            "files": {path: astuple(stamp) for path, stamp in self.files.items()},
            "links": self.links,
            "rules": {
                folder: {name: astuple(stamp) for name, stamp in files.items()}
                for folder, files in self.known.rules.items()
            },
            "verdicts": dict(self.known.verdicts),
            "package": self.package,
        }
        return bytes(msgpack.packb(wire, unicode_errors="surrogateescape"))

    @classmethod
    def unpack(cls, data: bytes, root: str, suffixes: tuple[str, ...]) -> Self:
        """Read what `pack` wrote; nothing is remembered if it is not of this place."""
        try:
            wire: dict[str, Any] = msgpack.unpackb(data, unicode_errors="surrogateescape")
            if (wire["v"], wire["root"], tuple(wire["suffixes"])) != (VERSION, root, suffixes):
                return cls()
            return cls(
                root,
                suffixes,
                wire["at"],
                _stamps(wire["files"]),
                wire["links"],
                Known({d: _stamps(f) for d, f in wire["rules"].items()}, wire["verdicts"]),
                wire["package"],
            )
        except (ValueError, KeyError, TypeError, AttributeError, msgpack.UnpackException):
            return cls()


def _stamps(wire: dict[str, Any]) -> dict[str, Stamp]:  # Any: plain msgpack values
    return {path: Stamp(*fields) for path, fields in wire.items()}
