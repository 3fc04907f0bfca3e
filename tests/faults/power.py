"""What a loss of power leaves of a directory, told from the calls that were made. Pure but `build`.

The rules are those of POSIX, not of a file system that is kinder: what was written is there for
sure after a sync of the file, a name after a sync of its directory. Anything else may be there, or
not, or in part: writes in the order in which they were made, the last of them torn or of zeros.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.faults.vfs import Call


@dataclass
class File:
    """Bytes that are safe, and what was done since: (offset, data), or (size, None) for a cut."""

    safe: bytes = b""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)

    def after(self, chance: Random | None) -> bytes:
        """The bytes that a loss of power leaves; without chance, no more than is sure."""
        data = bytearray(self.safe)
        if chance is None or not self.since:
            return bytes(data)
        count = chance.randint(0, len(self.since))
        for offset, written in self.since[:count]:
            _apply(data, offset, written)
        if count < len(self.since):
            offset, written = self.since[count]
            if written:
                kept = written[: chance.randint(0, len(written))]
                _apply(data, offset, bytes(len(kept)) if chance.random() < 0.3 else kept)
        return bytes(data)

    def sync(self) -> None:
        data = bytearray(self.safe)
        for offset, written in self.since:
            _apply(data, offset, written)
        self.safe, self.since = bytes(data), []


def _apply(data: bytearray, offset: int, written: bytes | None) -> None:
    if written is None:
        del data[offset:]
        data.extend(bytes(offset - len(data)))
        return
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(written)] = written


@dataclass
class Folder:
    """Names that are safe, and the changes since: (name, what is there now)."""

    safe: dict[str, "File | Folder"] = field(default_factory=dict)
    since: list[tuple[str, "File | Folder | None"]] = field(default_factory=list)

    def after(self, chance: Random | None) -> dict[str, "File | Folder"]:
        names = dict(self.safe)
        count = 0 if chance is None else chance.randint(0, len(self.since))
        for name, there in self.since[:count]:
            _set(names, name, there)
        return names

    def now(self) -> dict[str, "File | Folder"]:
        names = dict(self.safe)
        for name, there in self.since:
            _set(names, name, there)
        return names

    def sync(self) -> None:
        self.safe, self.since = self.now(), []


def _set(names: dict[str, File | Folder], name: str, there: File | Folder | None) -> None:
    if there is None:
        names.pop(name, None)
    else:
        names[name] = there


class Disk:
    """A directory, and what of it would survive."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.top = Folder()

    def do(self, calls: Iterable[Call]) -> None:
        for call in calls:
            getattr(self, f"_{call.kind}")(call)

    def build(self, target: Path, chance: Random | None) -> None:
        """Make the directory that a loss of power leaves."""
        _build(self.top, target, chance)

    def _parent(self, path: str) -> tuple[Folder, str]:
        *parts, name = path[len(self._root) + 1 :].split("/")
        folder = self.top
        for part in parts:
            below = folder.now().get(part)
            if not isinstance(below, Folder):
                raise KeyError(path)
            folder = below
        return folder, name

    def _at(self, path: str) -> File | Folder | None:
        if path == self._root:
            return self.top
        try:
            folder, name = self._parent(path)
        except KeyError:
            return None
        return folder.now().get(name)

    def _c(self, call: Call) -> None:
        folder, name = self._parent(call.path)
        folder.since.append((name, File()))

    def _d(self, call: Call) -> None:
        if call.path != self._root:
            folder, name = self._parent(call.path)
            folder.since.append((name, Folder()))

    def _m(self, call: Call) -> None:
        there = self._at(call.path)
        fresh, fresh_name = self._parent(call.other)
        old, old_name = self._parent(call.path)
        fresh.since.append((fresh_name, there))
        old.since.append((old_name, None))

    def _l(self, call: Call) -> None:
        folder, name = self._parent(call.other)
        folder.since.append((name, self._at(call.path)))

    def _u(self, call: Call) -> None:
        folder, name = self._parent(call.path)
        folder.since.append((name, None))

    def _w(self, call: Call) -> None:
        if isinstance(file := self._at(call.path), File):
            file.since.append((call.offset, call.data))

    def _t(self, call: Call) -> None:
        if isinstance(file := self._at(call.path), File):
            file.since.append((call.offset, None))

    def _s(self, call: Call) -> None:
        if (there := self._at(call.path)) is not None:
            there.sync()


def _build(folder: Folder, target: Path, chance: Random | None) -> None:
    target.mkdir(mode=0o700, exist_ok=True)
    for name, there in folder.after(chance).items():
        if isinstance(there, Folder):
            _build(there, target / name, chance)
        else:
            (target / name).write_bytes(there.after(chance))
            os.chmod(target / name, 0o600)
