"""`run.code`: the code that a run was started with. Metaflow's names, and a few more.

What is known without reading the package (script, digest, size) costs the journal's first frame;
the package is read, and checked against its digest, when its files are asked for. Nothing in it is
executed.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.client.reader import Reader
from engine.errors import NotFoundError
from engine.package.bundle import Bundle
from engine.stores.manifest import Entries, Entry

if TYPE_CHECKING:
    import tarfile

_PACKAGE = "package"


class Code:
    """The files of the flow's directory as they were when the run began."""

    def __init__(self, reader: Reader, pathspec: str, fields: Mapping[str, Any]) -> None:
        # Any: plain msgpack values, as the journal has them
        self._reader = reader
        self._pathspec = pathspec
        self._fields = fields
        self._entry: Entry = Entries(fields[_PACKAGE])[_PACKAGE]
        self._bundle: Bundle | None = None

    def __repr__(self) -> str:
        return f"Code({self._pathspec!r}, {self.digest[:12]})"

    @property
    def flow_name(self) -> str:
        return self._pathspec.partition("/")[0]

    @property
    def script_name(self) -> str:
        """The flow's own file: its path in the package."""
        return str(self._fields["script"])

    @property
    def digest(self) -> str:
        """The digest of the package; equal trees have equal ones, on every machine."""
        return self._entry.sha

    @property
    def size(self) -> int:
        """The size of the package in bytes, before it is compressed."""
        return self._entry.size_bytes

    @property
    def path(self) -> str:
        """The file that holds the package in the datastore, compressed as its manifest says."""
        return self._reader.blob_path(self._entry)

    @property
    def info(self) -> dict[str, Any]:  # Any: JSON
        """What is known of it, as plain values."""
        return {
            "flow": self.flow_name,
            "script": self.script_name,
            "digest": self.digest,
            "size_bytes": self.size,
            "files": self._fields["files"],
            "suffixes": list(self._fields["suffixes"]),
        }

    @property
    def files(self) -> list[str]:
        """The paths in it, relative to the flow's directory, in order.

        Raises:
            StoreError: the package is missing or damaged.
        """
        return self._package().files

    def sizes(self) -> dict[str, int]:
        """The size of each file in bytes, by path."""
        return self._package().sizes()

    def read(self, path: str) -> bytes:
        """The bytes of one file.

        Raises:
            NotFoundError: there is no such file in it.
            StoreError: the package is missing or damaged.
        """
        try:
            return self._package().read(path)
        except KeyError:
            raise NotFoundError(
                f"there is no file {path!r} in the code of {self._pathspec}",
                hint="`aflow package list` lists them",
            ) from None

    @property
    def flowspec(self) -> str:
        """The source of the flow's own file."""
        return self.read(self.script_name).decode(errors="replace")

    @property
    def tarball(self) -> "tarfile.TarFile":
        """The package, open for reading."""
        return self._package().open()

    def data(self) -> bytes:
        """The package: a tar."""
        return self._package().data

    def extract(self) -> "tempfile.TemporaryDirectory[str]":
        """Write the files into a temporary directory, which is removed with the returned object."""
        directory = tempfile.TemporaryDirectory(prefix="aflow-code-")
        try:
            self.extract_to(Path(directory.name))
        except BaseException:
            directory.cleanup()
            raise
        return directory

    def extract_to(self, directory: Path | str) -> Path:
        """Write the files into a directory, which is made, and return it.

        Raises:
            StoreError: the package is missing or damaged, or would write elsewhere.
        """
        self._package().extract(Path(directory))
        return Path(directory)

    def _package(self) -> Bundle:
        if self._bundle is None:
            data = self._reader.value(self._entry, allow_pickle=False)
            self._bundle = Bundle(data if isinstance(data, bytes) else b"")
        return self._bundle


def code_of(reader: Reader, flow: str, run_id: str) -> Code | None:
    """The code of a run; None if it has no package: `why_none` says why."""
    began = reader.began(flow, run_id)
    if began is None or _PACKAGE not in began.code:
        return None
    return Code(reader, f"{flow}/{run_id}", began.code)


def why_none(reader: Reader, flow: str, run_id: str) -> str:
    """Why a run has no package."""
    began = reader.began(flow, run_id)
    problem = began.code.get("problem") if began else None
    return str(problem or "it was made by an aflow that packaged no code")
