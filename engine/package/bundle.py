"""A flow's code as one tar file, the same bytes on every machine, and what is read from it.

The members are in order of their paths; times, owners and modes but for "executable" are left out,
so equal trees are equal bytes and one blob. The tar is plain: the store compresses it.

It is written here and not by `tarfile`, whose import (3 ms) every start after an edit would wait
for; the layout is that of POSIX.1-1988 (ustar), with the extended headers of POSIX.1-2001 (pax) for
names that it has no room for. It is read by `tarfile`, but laid out here: the filters of `tarfile`,
which refuse members that would land outside of the directory, are not in Python 3.11.0 to 3.11.3.
"""

import io
import os
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import CodePackageError, StoreError
from engine.package.tree import Tree

if TYPE_CHECKING:
    import tarfile

SIZE_MAX = 50_000_000
"""Bytes of code that are packaged without being asked for."""

_BLOCK = 512
_NAME_MAX = 100  # bytes of a name, or of a link's target, in an ustar header
_FILE, _LINK, _EXTENDED = b"0", b"2", b"x"


def pack(tree: Tree) -> bytes:
    """Read the files of a tree and lay them out as a tar.

    Raises:
        CodePackageError: a file cannot be read.
    """
    parts: list[bytes] = []
    for path in sorted([*tree.files, *tree.links]):
        if path in tree.links:
            parts += _member(path, _LINK, b"", target=tree.links[path])
        else:
            mode = 0o755 if tree.files[path].is_executable else 0o644
            parts += _member(path, _FILE, _read(tree.root, path), mode=mode)
    parts.append(bytes(2 * _BLOCK))
    return b"".join(parts)


def _unfollowed(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _read(root: str, path: str) -> bytes:
    try:
        with open(os.path.join(root, path), "rb", opener=_unfollowed) as file:
            return file.read()
    except OSError as error:
        raise CodePackageError(root, problem=f"cannot be read: {path}: {error.strerror}") from error


def _member(
    path: str, kind: bytes, data: bytes, *, mode: int = 0o644, target: str = ""
) -> Iterator[bytes]:
    name, link = os.fsencode(path), os.fsencode(target)
    extended = b"".join(
        _record(key, value)
        for key, value in ((b"path", name), (b"linkpath", link))
        if len(value) > _NAME_MAX or not value.isascii()
    )
    if extended:
        yield _header(b"././@PaxHeader", _EXTENDED, len(extended))
        yield from _padded(extended)
    yield _header(name, kind, len(data), mode=mode, link=link)
    yield from _padded(data)


def _padded(data: bytes) -> Iterator[bytes]:
    yield data
    yield bytes(-len(data) % _BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """ "length key=value\\n", where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _header(name: bytes, kind: bytes, size: int, *, mode: int = 0o644, link: bytes = b"") -> bytes:
    fields = (
        name[:_NAME_MAX].ljust(_NAME_MAX, b"\0"),
        b"%07o\0" % mode,
        b"%07o\0" % 0,  # owner
        b"%07o\0" % 0,  # group
        b"%011o\0" % size,
        b"%011o\0" % 0,  # time
        b" " * 8,  # the checksum, while it is computed
        kind,
        link[:_NAME_MAX].ljust(_NAME_MAX, b"\0"),
        b"ustar\x0000",
    )
    block = b"".join(fields).ljust(_BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


class Bundle:
    """A package that was read back: the bytes of a tar."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def files(self) -> list[str]:
        """The paths in it, in order."""
        with self.open() as tar:
            return tar.getnames()

    def sizes(self) -> dict[str, int]:
        """The size of each file in bytes, by path."""
        with self.open() as tar:
            return {member.name: member.size for member in tar.getmembers()}

    def read(self, path: str) -> bytes:
        """One file, or what the link of that name leads to.

        Raises:
            KeyError: there is no such file.
            StoreError: the package is damaged.
        """
        with self.open() as tar:
            file = tar.extractfile(path)
            if file is None:
                raise KeyError(path)
            return file.read()

    def extract(self, directory: Path) -> None:
        """Write the files into a directory, which is made.

        Raises:
            StoreError: the package is damaged, or a member would land outside of the directory.
        """
        directory.mkdir(parents=True, exist_ok=True)
        root = os.path.realpath(directory)
        with self.open() as tar:
            for member in tar:
                _lay_out(tar, member, root)

    def open(self) -> "tarfile.TarFile":
        """The tar, open for reading.

        Raises:
            StoreError: it is none.
        """
        library: Any = import_module("tarfile")  # Any: a module
        try:
            opened: tarfile.TarFile = library.open(fileobj=io.BytesIO(self.data), mode="r:")
        except library.TarError as error:
            raise StoreError(f"a code package cannot be read: {error}") from error
        return opened


def _lay_out(tar: "tarfile.TarFile", member: "tarfile.TarInfo", root: str) -> None:
    place = os.path.join(root, member.name.lstrip("/"))
    above = _inside(root, os.path.dirname(place), member)
    os.makedirs(above, exist_ok=True)
    with suppress(FileNotFoundError):
        os.unlink(place)
    if member.issym():
        _inside(root, os.path.join(above, member.linkname), member)
        os.symlink(member.linkname, place)
    elif member.isreg() and (content := tar.extractfile(member)) is not None:
        mode = 0o755 if member.mode & 0o100 else 0o644
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with content, open(os.open(place, flags, mode), "wb") as file:
            file.write(content.read())
    else:
        raise StoreError(f"a code package is refused: {member.name!r} is no file and no link")


def _inside(root: str, place: str, member: "tarfile.TarInfo") -> str:
    """Where a path leads to, once its links are followed; refused if that is not below the root."""
    real = os.path.realpath(place)
    if os.path.commonpath((root, real)) != root:
        raise StoreError(f"a code package is refused: {member.name!r} leads out of its directory")
    return real


def suffixes_of(text: str) -> tuple[str, ...]:
    """The suffixes in ".py,.R"; none in "none"."""
    return () if text == "none" else tuple(sorted({*text.split(",")}))
