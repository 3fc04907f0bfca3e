"""A datastore in an object store, found by its URL: the store and its directory here, joined.

Readers and runs open it alike; what a journal's frames mean to it comes from the scheduler.
"""

import hashlib
import re
import time
from pathlib import Path

from engine.config import Config
from engine.errors import ConfigError
from engine.portal import Portal
from engine.scheduler.facts import fact_of, named_in
from engine.stores.access import CACHE_OF, access_error
from engine.stores.base import BlobStore
from engine.stores.layout import Layout, create_layout
from engine.stores.metadata.base import MetadataStore
from engine.stores.remote.cache import trim
from engine.stores.remote.downloads import Downloads
from engine.stores.remote.replica import Replica, Terms

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def replica_layout(config: Config) -> Layout:
    """The directory on this machine that goes with the object store; made if it is not there.

    Raises:
        ConfigError: there is no such kind of store in this version.
        DatastoreError: something else is in its place.
        StoreAccessError: the file system refuses.
    """
    _check_kind(config)
    url = config.datastore.rstrip("/")
    name = _UNSAFE.sub("-", url.partition("://")[2]).strip("-.")[:64]
    endpoint = config.s3_endpoint_url or ""
    told_apart = hashlib.blake2b(f"{url} {endpoint}".encode(), digest_size=6).hexdigest()
    root = Path(config.cache_dir).absolute() / "stores" / f"{name}-{told_apart}"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (root / CACHE_OF).exists():
            (root / CACHE_OF).write_text(f"{url}\n")
    except OSError as error:
        raise access_error(error, str(root), "create a cache in", is_cache=True) from error
    return create_layout(root)


def open_replica(config: Config, layout: Layout, metadata: MetadataStore) -> Replica:
    """Join the object store of `config` with its directory."""
    terms = Terms(
        decode=fact_of,
        named=named_in,
        now_us=lambda: time.time_ns() // 1000,
        cache_max_bytes=config.cache_max_mib << 20,
        owns_list=not config.metadata,
    )
    return Replica(open_blobs(config), layout, metadata, terms)


def open_blobs(config: Config) -> BlobStore:
    """The object store of a URL. Connects to nothing yet."""
    from engine.stores.s3.store import open_s3  # noqa: PLC0415  # only where it is needed

    return open_s3(config.datastore, config)


def _check_kind(config: Config) -> None:
    scheme = config.datastore.partition("://")[0]
    if scheme != "s3":
        raise ConfigError(
            f"datastore {config.datastore!r}: there is no {scheme} datastore in this version",
            hint="give a directory or s3://BUCKET/PREFIX: --datastore PLACE",
        )


class Fetcher:
    """Brings blobs into the directory for a caller that is not async; see BlobDirectory.

    It may be called after `close`, too: what a run left can be loaded as long as one likes.
    """

    def __init__(self, config: Config, layout: Layout) -> None:
        self._portal = Portal(lambda: open_blobs(config))
        self._directory = layout.blob_directory()
        self._layout, self._max_bytes = layout, config.cache_max_mib << 20
        self._has_fetched = False

    def __call__(self, digest: str) -> None:
        self._has_fetched = True
        self._portal.call(lambda blobs: Downloads(blobs, self._directory).fetch(digest))

    def close(self) -> None:
        self._portal.close()
        if self._has_fetched:
            trim(self._layout, self._max_bytes)
