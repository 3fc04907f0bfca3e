"""What containers need, put where they find it: aflow itself, once for each environment."""

import hashlib
from contextlib import suppress
from pathlib import Path

from engine.package.runtime import Runtime
from engine.stores.base import BlobStore
from engine.stores.remote.parcels import runtime_key
from engine.stores.temporary import new_file
from engine.stores.threads import in_thread


async def ensure_runtime(blobs: BlobStore, cache: Path) -> str:
    """Return the SHA-256 of aflow's package, which is in the store then.

    An unchanged environment costs a `stat` of each of its files and one request.

    Args:
        blobs: the object store.
        cache: where packages are kept on this machine.

    Raises:
        StoreError: the store does not take it.
    """
    runtime = await in_thread(Runtime)
    stamp = cache / (await in_thread(runtime.stamp))
    sha256 = await in_thread(_remembered, stamp)
    if sha256 is not None and await blobs.stat(runtime_key(sha256)) is not None:
        return sha256
    data = await in_thread(runtime.pack)
    sha256 = hashlib.sha256(data).hexdigest()
    await blobs.put(runtime_key(sha256), (data,), if_absent=True)
    await in_thread(_remember, stamp, sha256)
    return sha256


def _remembered(stamp: Path) -> str | None:
    try:
        return stamp.read_text() or None
    except OSError:
        return None


def _remember(stamp: Path, sha256: str) -> None:
    # That this fails is no error: the package is made again then.
    with suppress(OSError), new_file(str(stamp.parent)) as (_, name):
        Path(name).write_text(sha256)
        Path(name).rename(stamp)
