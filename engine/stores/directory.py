"""Blobs in a local directory: the synchronous primitives under every local store.

A blob lies at blobs/ab/<64 hex>, named by the BLAKE3 of its bytes, and never changes: it is written
under a name in blobs/tmp and renamed, so a reader sees a whole blob or none. The worker's child
calls this directly, so nothing here imports asyncio; the async stores wrap it in threads.

What shaped it: hashing 1 GiB takes 0.24 s and writing it 0.25 s, so large blobs are hashed by one
thread while another writes, and a reader does not hash again what its writer hashed, as long as
`stat` says that the file is still the one that was hashed.
"""

import mmap
import os
import resource
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Self

from blake3 import blake3

from engine import crashpoints
from engine.errors import BlobCorruptError, BlobNotFoundError, StoreError
from engine.stores.access import access_error
from engine.stores.base import Buffer
from engine.stores.manifest import FileIdentity
from engine.stores.temporary import new_file

DIGEST_HEX = 64
PIPELINE_MIN_BYTES = 4 << 20
MAP_MIN_BYTES = 64 << 10
"""Below it, reading and hashing (25 us) costs no more than a mapping and its page faults."""

_JOIN_MAX_BYTES = 256 << 10  # one copy and one write beat several writes
_CHUNK_BYTES = 8 << 20
_READ_BYTES = 1 << 20  # stays in the cache between the read and the hash
_VERIFIED_MAX = 65_536
_OPEN_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def byte_views(parts: Sequence[Buffer]) -> list[memoryview]:
    """Flat views of `parts`, none empty, without copying."""
    views = [memoryview(part) for part in parts]
    return [view if view.format == "B" and view.ndim == 1 else view.cast("B") for view in views]


def digest_of(parts: Sequence[Buffer]) -> str:
    """The BLAKE3 of the concatenated parts, 64 lower-case hex digits."""
    if len(parts) == 1:
        return blake3(parts[0]).hexdigest()
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def identity_of(fd: int) -> FileIdentity:
    """What `stat` says of an open file."""
    found = os.fstat(fd)
    return FileIdentity(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def digest_of_file(fd: int) -> str:
    """Hash an open file by reading it: a mapping would count all of it as this process's memory."""
    hasher = blake3()
    block = memoryview(bytearray(_READ_BYTES))
    offset = 0
    while count := os.preadv(fd, [block], offset):
        hasher.update(block[:count])
        offset += count
    return hasher.hexdigest()


def write_all(fd: int, views: Sequence[memoryview]) -> None:
    """Write every byte, whatever number of calls that takes."""
    for block in _blocks(views):
        _write_block(fd, block)


def pwrite_all(fd: int, data: Buffer, offset: int) -> None:
    """Write every byte at `offset`, whatever number of calls that takes."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def _write_block(fd: int, block: memoryview) -> None:
    if crashpoints.BLOB_HALF_WRITTEN.is_due():
        os.write(fd, block[: len(block) // 2])
        crashpoints.crash()
    while block:
        block = block[os.write(fd, block) :]


def _blocks(views: Sequence[memoryview]) -> Iterator[memoryview]:
    if len(views) > 1 and sum(view.nbytes for view in views) <= _JOIN_MAX_BYTES:
        views = [memoryview(b"".join(views))]
    for view in views:
        for start in range(0, view.nbytes, _CHUNK_BYTES):
            yield view[start : start + _CHUNK_BYTES]


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a loss of power."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _Hashing:
    """One pass over the parts in a thread; blake3 lets go of the interpreter's lock meanwhile."""

    def __init__(self, views: Sequence[memoryview]) -> None:
        self._views = views
        self._digest = ""
        self._thread = threading.Thread(target=self._run, name="aflow-hash", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._digest = digest_of(self._views)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()  # it reads the caller's buffers

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def digest(self) -> str:
        self._thread.join()
        return self._digest


class BlobDirectory:
    """Content-addressed blobs under `root` (the directory `blobs` of a datastore).

    `durability` is "process" (a killed process loses nothing) or "power" (each blob and its name
    are synced). `verify` is "identity" or "always": whether a file that is still the one that was
    hashed may be mapped without hashing it again.

    `fetch` is called with the digest of a blob that is to be read and is not there; it brings it,
    or raises BlobNotFoundError.

    A change of the bytes that leaves inode, size and both times alone (a failing disk) is only seen
    by `verify="always"` and by `fsck --read-data`.
    """

    def __init__(
        self,
        root: str,
        *,
        durability: str = "process",
        verify: str = "identity",
        fetch: Callable[[str], None] | None = None,
    ) -> None:
        self.root, self._fetch = root, fetch
        self._temporary = f"{root}/tmp"
        self.durability, self.verification = durability, verify
        self._power = durability == "power"
        self._always = verify == "always"
        self._verified: dict[str, FileIdentity] = {}
        self._synced: set[str] = set()
        self._mapped: weakref.WeakSet[mmap.mmap] | None = None  # most tasks map nothing

    def path(self, digest: str) -> str:
        """Where the blob lies.

        Raises:
            StoreError: `digest` is not 64 lower-case hex digits.
        """
        if len(digest) != DIGEST_HEX or digest.strip("0123456789abcdef"):
            raise StoreError(f"{digest[:80]!r} is not a digest")
        return os.path.join(self.root, digest[:2], digest)

    # -- writing --------------------------------------------------------------------------------

    def write(self, parts: Sequence[Buffer], digest: str | None = None) -> tuple[str, FileIdentity]:
        """Store the concatenation of `parts` unless it is there already, whole and sound.

        Args:
            parts: read in place, never copied when large; must not change meanwhile.
            digest: their BLAKE3, when the caller has it.

        Returns:
            The digest, and the identity of the file that was written or found and verified.

        Raises:
            StoreAccessError: no room, read-only, no permission, too many open files ... Nothing is
                left behind.
        """
        views = byte_views(parts)
        size = sum(view.nbytes for view in views)
        try:
            if digest is None and size >= PIPELINE_MIN_BYTES:
                return self._write_while_hashing(views, size)
            digest = digest or digest_of(views)
            if found := self._find(digest, size):
                return digest, found
            with new_file(self._temporary) as (fd, name):
                write_all(fd, views)
                return digest, self._keep(fd, name, digest)
        except OSError as error:
            raise access_error(error, self.root, "write to", size) from error

    def _write_while_hashing(
        self, views: Sequence[memoryview], size: int
    ) -> tuple[str, FileIdentity]:
        """Hashing is faster than writing, so a blob that is there already is noticed half-way."""
        with new_file(self._temporary) as (fd, name), _Hashing(views) as hashing:
            blocks = _blocks(views)
            for block in blocks:
                _write_block(fd, block)
                if hashing.is_done:
                    break
            digest = hashing.digest()
            if found := self._find(digest, size):
                return digest, found
            for block in blocks:
                _write_block(fd, block)
            return digest, self._keep(fd, name, digest)

    def adopt(self, digest: str, fd: int, name: str) -> FileIdentity:
        """Keep a file that another has written, if its bytes have this digest.

        Args:
            digest: what they should have.
            fd: of the file, open for reading, too.
            name: its path, in `blobs/tmp`.

        Raises:
            BlobCorruptError: they have another.
        """
        found = digest_of_file(fd)
        if found != digest:
            raise BlobCorruptError(digest, expected=digest, actual=found)
        return self._keep(fd, name, digest)

    def write_chunks(self, chunks: Iterable[Buffer]) -> tuple[str, FileIdentity]:
        """Store the concatenation of `chunks`, of which one at a time is in memory.

        Raises:
            StoreAccessError: as `write`; what `chunks` raise is passed on. Nothing is left behind.
        """
        hasher = blake3()
        size = 0
        try:
            with new_file(self._temporary) as (fd, name):
                for chunk in chunks:
                    (view,) = byte_views([chunk])
                    hasher.update(view)
                    _write_block(fd, view)
                    size += view.nbytes
                digest = hasher.hexdigest()
                if found := self._find(digest, size):
                    return digest, found
                return digest, self._keep(fd, name, digest)
        except OSError as error:
            raise access_error(error, self.root, "write to", size) from error

    def _keep(self, fd: int, name: str, digest: str) -> FileIdentity:
        """Give a written file its lasting name."""
        if self._power:
            os.fsync(fd)
        path = self._rename(name, digest)
        if self._power:
            self._sync_name(path)
        identity = identity_of(fd)  # after the rename, which changes the ctime
        self._remember(digest, identity)
        return identity

    def _rename(self, name: str, digest: str) -> str:
        path = self.path(digest)
        crashpoints.BLOB_BEFORE_RENAME.passed()
        try:
            os.rename(name, path)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(os.path.dirname(path), 0o700)
            os.rename(name, path)
        crashpoints.BLOB_AFTER_RENAME.passed()
        return path

    def _find(self, digest: str, size: int) -> FileIdentity | None:
        """The identity of a blob that is there and sound; a damaged one is as good as none."""
        try:
            fd = os.open(self.path(digest), _OPEN_READ)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise access_error(error, self.path(digest), "read") from error
        try:
            identity = identity_of(fd)
            if identity.size_bytes != size or self._hash_file(fd, digest, identity) != digest:
                return None
            if self._power:  # who wrote it may not have, or not yet
                os.fsync(fd)
                self._sync_name(self.path(digest))
            return identity
        finally:
            os.close(fd)

    def _sync_name(self, path: str) -> None:
        """Make the name of a blob survive a loss of power, and that of its directory, once."""
        folder = os.path.dirname(path)
        sync_directory(folder)
        if folder not in self._synced:
            sync_directory(self.root)
            self._synced.add(folder)

    # -- reading --------------------------------------------------------------------------------

    def exists(self, digest: str) -> bool:
        """Whether a file of that name is there; says nothing of its bytes."""
        return os.path.exists(self.path(digest))

    def read(self, digest: str) -> bytes:
        """The blob's bytes, verified.

        Raises:
            BlobNotFoundError, BlobCorruptError, StoreAccessError.
        """
        with self._open(digest) as fd:
            return bytes(_read_checked(fd, digest))

    def map(self, digest: str, identity: FileIdentity | None = None) -> memoryview:
        """The blob's bytes as private, writable memory: changes never reach the file.

        A large blob is mapped, so that only the touched pages are read; a small one is read.

        Args:
            digest: the blob.
            identity: of the file whose bytes had this digest. If the file is still that one, it is
                not hashed again.

        Raises:
            BlobNotFoundError, BlobCorruptError, StoreAccessError.
        """
        with self._open(digest) as fd:
            actual = identity_of(fd)
            if actual.size_bytes < MAP_MIN_BYTES:
                return memoryview(_read_checked(fd, digest))
            self._check(fd, digest, actual, identity)
            if self._mapped is None:
                self._mapped = weakref.WeakSet()
            if len(self._mapped) < _mappings_max():
                mapped = mmap.mmap(fd, actual.size_bytes, access=mmap.ACCESS_COPY)
                self._mapped.add(mapped)
                return memoryview(mapped)
            return memoryview(_read_checked(fd, digest))

    def check(self, digest: str, identity: FileIdentity | None = None) -> None:
        """Hash the blob's bytes, unless its file is the one of `identity`.

        Raises:
            BlobNotFoundError, BlobCorruptError, StoreAccessError.
        """
        with self._open(digest) as fd:
            self._check(fd, digest, identity_of(fd), identity)

    def verify(self, digest: str) -> None:
        """Hash the blob's bytes, whatever is known of its file.

        Raises:
            BlobNotFoundError, BlobCorruptError, StoreAccessError.
        """
        with self._open(digest) as fd:
            found = digest_of_file(fd)
            if found != digest:
                raise BlobCorruptError(digest, expected=digest, actual=found)

    def size(self, digest: str) -> int | None:
        """The size of the blob's file in bytes, None when there is none."""
        try:
            return os.stat(self.path(digest), follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    @contextmanager
    def _open(self, digest: str) -> Iterator[int]:
        path = self.path(digest)
        try:
            fd = self._open_fd(digest, path)
        except FileNotFoundError as error:
            raise BlobNotFoundError(digest) from error
        except OSError as error:
            raise access_error(error, path, "read") from error
        try:
            yield fd
        except OSError as error:
            raise access_error(error, path, "read") from error
        finally:
            os.close(fd)

    def _open_fd(self, digest: str, path: str) -> int:
        with suppress(FileNotFoundError):
            return os.open(path, _OPEN_READ)
        if self._fetch is not None:
            self._fetch(digest)
        return os.open(path, _OPEN_READ)

    def _check(
        self, fd: int, digest: str, actual: FileIdentity, identity: FileIdentity | None
    ) -> None:
        if actual == identity and not self._always:
            self._remember(digest, actual)
            return
        found = self._hash_file(fd, digest, actual)
        if found != digest:
            raise BlobCorruptError(digest, expected=digest, actual=found)

    def _hash_file(self, fd: int, digest: str, identity: FileIdentity) -> str:
        """The file's digest, from memory if it is the file that this process hashed."""
        if not self._always and self._verified.get(digest) == identity:
            return digest
        found = digest_of_file(fd)
        if found == digest and identity_of(fd) == identity:
            self._remember(digest, identity)
        return found

    def _remember(self, digest: str, identity: FileIdentity) -> None:
        if len(self._verified) >= _VERIFIED_MAX:
            self._verified.clear()
        self._verified[digest] = identity


def _read_checked(fd: int, digest: str) -> bytearray:
    size = os.fstat(fd).st_size
    data = bytearray(size)
    view = memoryview(data)
    done = 0
    while done < size and (count := os.preadv(fd, [view[done:]], done)):
        done += count
    found = blake3(data).hexdigest()
    if found != digest:
        raise BlobCorruptError(digest, expected=digest, actual=found)
    return data


def _mappings_max() -> int:
    """How many mappings may live at once: before Python 3.13 each one keeps a file handle."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
