"""What housekeeping asks of a datastore, of a directory and of an object store alike."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

from engine.client.audit import Audit
from engine.config import Config
from engine.stores.fsck import Damage
from engine.stores.gc import Collected, Request, RunName, collect, stored_files, survey
from engine.stores.layout import Layout, open_layout
from engine.stores.metadata.local import LocalMetadataSync


class Keeper(Protocol):
    """`layout` is the directory, or of an object store the one that goes with it here."""

    layout: Layout
    metadata: Path
    place: str

    def refresh(self) -> None:
        """Bring all that is elsewhere up to date in `layout`."""
        ...

    def alive(self) -> set[RunName]:
        """The runs that somebody drives."""
        ...

    def blob_sizes(self) -> dict[bytes, int]:
        """The size of each blob, by its digest as 32 bytes."""
        ...

    def collect(self, request: Request) -> Collected:
        """As engine.stores.gc.collect; deleted runs are off the list of runs, too."""
        ...

    def damages(self, *, read_data: bool) -> tuple[int, list[Damage]]:
        """How many runs there are, and all that is not as it was written."""
        ...


@contextmanager
def keeper(config: Config) -> Iterator[Keeper]:
    """Open the datastore of a configuration for housekeeping.

    Raises:
        DatastoreError: there is none, or it is something else.
        ConfigError: there is no such kind of store in this version.
    """
    if "://" in config.datastore:
        from engine.client.remote_keeper import RemoteKeeper  # noqa: PLC0415  # only where needed

        with closing(RemoteKeeper(config)) as remote:
            yield remote
        return
    yield LocalKeeper(config)


def metadata_path(config: Config, layout: Layout) -> Path:
    """Where the list of runs is."""
    return Path(config.metadata) if config.metadata else layout.metadata


class LocalKeeper:
    """Housekeeping of a directory."""

    def __init__(self, config: Config) -> None:
        self.layout = open_layout(Path(config.datastore))
        self.metadata = metadata_path(config, self.layout)
        self.place = str(self.layout.root)

    def refresh(self) -> None:
        """All is here."""

    def alive(self) -> set[RunName]:
        return {alive.run for alive in survey(self.layout).alive}

    def blob_sizes(self) -> dict[bytes, int]:
        return {f.digest: f.size_bytes for f in stored_files(self.layout) if f.digest}

    def collect(self, request: Request) -> Collected:
        done = collect(self.layout, request)
        if not request.is_dry_run:
            unlist(self.metadata, request)
        return done

    def damages(self, *, read_data: bool) -> tuple[int, list[Damage]]:
        audit = Audit(self.layout, self.metadata, read_data=read_data)
        found = list(audit.damages())
        return audit.runs, found


def unlist(metadata: Path, request: Request) -> None:
    """Take the deleted runs of a request off the list of runs.

    After they are gone: a run that is listed and gone can be deleted again; one that is there and
    not listed would be found by `fsck --reindex` alone.
    """
    if request.runs:
        with closing(LocalMetadataSync(metadata)) as listed:
            for run in request.runs:
                listed.delete_run(run.flow, run.run_id)
