"""The local datastore directory: where everything lies, and whether a directory may be one.

    format                    "aflow datastore 1"
    .gitignore                "*"
    blobs/ab/<64 hex>         content-addressed, shared by all flows; see directory.py
    blobs/tmp/                names in the making
    runs/<Flow>/<run_id>/     journal, log, lock
    packages/                 what is remembered of directories that were packaged
    metadata.db               SQLite

A directory that holds anything else is somebody's, and is not written to.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from engine import crashpoints
from engine.errors import DatastoreError, UnsafeNameError
from engine.ids import is_safe_name, safe_name
from engine.stores.access import CACHE_OF, access_error
from engine.stores.directory import BlobDirectory, sync_directory
from engine.stores.temporary import new_file, sweep

DIRECTORY_NAME = ".aflow"
FORMAT_VERSION = 1

_FORMAT = "aflow datastore"
_IGNORED = frozenset({".gitignore", ".DS_Store"})


class Layout(Struct, frozen=True):
    """Paths inside an open datastore. `root` is absolute.

    `fetch` brings a blob that is not there, if there is a place to fetch it from (BlobDirectory).
    With `durability` "power", what is made here survives a loss of power.
    """

    root: Path
    durability: str = "process"
    fetch: Callable[[str], None] | None = None

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def metadata(self) -> Path:
        return self.root / "metadata.db"

    def run(self, flow: str, run_id: str) -> Path:
        """The directory of a run, which need not be there.

        Raises:
            UnsafeNameError: a name is not safe, or the path leaves the datastore.
        """
        runs = self.root / "runs"
        path = runs / safe_name(flow, what="flow") / safe_name(run_id, what="run id")
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise UnsafeNameError("run", f"{flow}/{run_id}", problem="leads out of the datastore")
        return path

    def journal(self, flow: str, run_id: str) -> Path:
        return self.run(flow, run_id) / "journal"

    def log(self, flow: str, run_id: str) -> Path:
        return self.run(flow, run_id) / "log"

    def lock(self, flow: str, run_id: str) -> Path:
        return self.run(flow, run_id) / "lock"

    def listed(self, flow: str, run_id: str) -> Path:
        """A file that tells of a run driven here that an object store has it on its list."""
        return self.run(flow, run_id) / "listed"

    def indexed(self, flow: str, run_id: str) -> Path:
        """A file that says how many bytes of a pulled journal the list of tasks knows."""
        return self.run(flow, run_id) / "indexed"

    def create_run(self, flow: str, run_id: str) -> Path:
        """Make the directory of a run; it may be there.

        Raises:
            UnsafeNameError: as `run`.
            StoreAccessError: the file system refuses.
        """
        path = self.run(flow, run_id)
        try:
            for folder in (path.parent.parent, path.parent, path):
                with suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
                if self.durability == "power":
                    sync_directory(str(folder.parent))
        except OSError as error:
            raise access_error(error, str(path), "create") from error
        return path

    def package_index(self, name: str) -> Path:
        """Where is remembered what a directory of code looked like; `name` is a digest."""
        return self.root / "packages" / name

    def write_package_index(self, name: str, data: bytes) -> None:
        """Remember it. That this fails is no error: it is looked at again then."""
        path = self.package_index(name)
        with suppress(OSError), new_file(str(self.blobs / "tmp")) as (fd, temporary):
            with suppress(FileExistsError):
                path.parent.mkdir(mode=0o700)
            os.write(fd, data)
            os.rename(temporary, path)

    def sweep(self) -> int:
        """Remove what killed writers left half made; return how many files that were."""
        return sweep(str(self.blobs / "tmp"))

    def flows(self) -> list[str]:
        """The flows that have a run here, by name."""
        return _names(self.root / "runs")

    def run_ids(self, flow: str) -> list[str]:
        """The runs of a flow, oldest first."""
        return _names(self.root / "runs" / safe_name(flow, what="flow"))

    def blob_directory(
        self, *, durability: str = "process", verify: str = "identity"
    ) -> BlobDirectory:
        return BlobDirectory(
            str(self.blobs), durability=durability, verify=verify, fetch=self.fetch
        )


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                e.name for e in entries if is_safe_name(e.name) and e.is_dir(follow_symlinks=False)
            )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise access_error(error, str(folder), "list") from error


def find(start: Path) -> Path | None:
    """The nearest `.aflow` directory in `start` or above it."""
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / DIRECTORY_NAME).is_dir():
            return folder / DIRECTORY_NAME
    return None


def open_layout(path: Path) -> Layout:
    """Open a datastore that is there.

    Raises:
        DatastoreError: there is none, it is something else, or of a later version.
        StoreAccessError: the file system refuses.
    """
    root = path.absolute()
    try:
        text = (root / "format").read_bytes()[:80].decode("utf-8", "replace").strip()
    except FileNotFoundError:
        raise _no_datastore(root) from None
    except NotADirectoryError:
        raise _not_a_directory(root) from None
    except OSError as error:
        raise access_error(error, str(root), "open") from error
    _check_version(root, text)
    return Layout(root)


def create_layout(path: Path, *, durability: str = "process") -> Layout:
    """Open the datastore at `path`, making it if nothing is there or the directory is empty.

    Two processes may do so at once.

    Raises:
        DatastoreError: something else is there.
        StoreAccessError: the file system refuses.
    """
    root = path.absolute()
    layout = _create(root)
    if durability != "power":
        return layout
    try:
        with (root / "format").open("rb") as file:
            os.fsync(file.fileno())
        for folder in (root / "blobs", root, root.parent):
            sync_directory(str(folder))
    except OSError as error:
        raise access_error(error, str(root), "sync") from error
    return Layout(root, durability)


def _create(root: Path) -> Layout:
    if (root / "format").exists():
        layout = open_layout(root)
        if not os.access(root, os.W_OK):
            raise access_error(PermissionError(13, "Permission denied"), str(root), "write to")
        return layout
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if foreign := _foreign(root):
            raise _foreign_directory(root, foreign)
        for name in ("blobs", "blobs/tmp", "runs"):
            (root / name).mkdir(mode=0o700, exist_ok=True)
        _write(root, ".gitignore", "*\n")
        crashpoints.DATASTORE_BEFORE_FORMAT.passed()
        _write(root, "format", f"{_FORMAT} {FORMAT_VERSION}\n")
    except (FileExistsError, NotADirectoryError):
        raise _not_a_directory(root) from None
    except OSError as error:
        raise access_error(error, str(root), "create a datastore in") from error
    return open_layout(root)


def _write(root: Path, name: str, text: str) -> None:
    with new_file(str(root / "blobs" / "tmp")) as (fd, temporary):
        os.write(fd, text.encode())
        os.fsync(fd)  # once in the life of a datastore; an empty `format` would make it a stranger
        os.rename(temporary, root / name)


def _foreign(root: Path) -> str | None:
    """A name that no datastore in the making has."""
    ours = {"blobs", "runs", "format", CACHE_OF, *_IGNORED}
    names = sorted(os.listdir(root))
    strangers = [name for name in names if name not in ours]
    return strangers[0] if strangers else None


def _check_version(root: Path, text: str) -> None:
    words = text.rpartition(" ")
    if words[0] != _FORMAT or not words[2].isdecimal():
        raise _foreign_directory(root, "format")
    if int(words[2]) > FORMAT_VERSION:
        raise DatastoreError(
            str(root),
            problem=f"is a datastore of version {words[2]}; this aflow reads {FORMAT_VERSION}",
            hint="use the aflow that made it, or a later one",
        )


def _no_datastore(root: Path) -> DatastoreError:
    if not root.exists():
        return DatastoreError(
            str(root), problem="does not exist", hint="`aflow run` makes a datastore there"
        )
    if not root.is_dir():
        return _not_a_directory(root)
    foreign = _foreign(root)
    if foreign:
        return _foreign_directory(root, foreign)
    return DatastoreError(
        str(root), problem="is an empty directory", hint="`aflow run` makes a datastore there"
    )


def _not_a_directory(root: Path) -> DatastoreError:
    return DatastoreError(
        str(root),
        problem="is not a directory, or a part of its path is none",
        hint="name a directory with --datastore DIR",
    )


def _foreign_directory(root: Path, name: str) -> DatastoreError:
    return DatastoreError(
        str(root),
        problem=f"is not a datastore of aflow: it holds {name!r}",
        hint="name an empty or new directory with --datastore DIR",
    )
