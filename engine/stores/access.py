"""What a file system refused, as an error with a hint that fits the place."""

import errno
import os
from contextlib import suppress

from engine.errors import StoreAccessError

_HINTS = {
    errno.ENOSPC: "free some space (see `aflow gc`), or use another place with --datastore DIR",
    errno.EDQUOT: "free some of your quota, or choose another place with --datastore DIR",
    errno.EROFS: "choose a place that can be written with --datastore DIR",
    errno.EACCES: "the directory belongs to another user, or its mode forbids it",
    errno.EPERM: "the directory belongs to another user, or its mode forbids it",
    errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
    errno.ENFILE: "the machine has no free file handle left",
    errno.ENOMEM: "the machine has no memory left: end other programs, or use --max-workers 1",
    errno.EFBIG: "raise the limit of file sizes: ulimit -f unlimited",
    errno.ELOOP: "the store does not follow symbolic links inside itself",
}
CACHE_OF = "cache-of"
"""A file in a datastore's directory that goes with an object store; holds the store's URL."""

_CACHE_HINTS = {
    code: f"{mend} with cache_dir (AFLOW_CACHE_DIR)"
    for code, mend in {
        errno.ENOSPC: "free some space, or choose another place for the cache",
        errno.EDQUOT: "free some of your quota, or choose another place for the cache",
        errno.EROFS: "choose a place for the cache that can be written",
        errno.EEXIST: "choose a directory for the cache",
        errno.ENOTDIR: "choose a directory for the cache",
    }.items()
}


def access_error(
    error: OSError, path: str, doing: str, need_bytes: int | None = None, *, is_cache: bool = False
) -> StoreAccessError:
    """Say what the file system refused, with the room that is left when room may be the matter.

    Where `path` lies in the cache of an object store, or `is_cache`, the hint names its setting.
    """
    hints = _HINTS | _CACHE_HINTS if is_cache or _is_in_cache(path) else _HINTS
    free = None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with suppress(OSError):
            room = os.statvfs(_existing(path))
            free = room.f_bavail * room.f_frsize
    return StoreAccessError(
        path,
        doing=doing,
        problem=error.strerror or type(error).__name__,
        need_bytes=need_bytes,
        free_bytes=free,
        hint=hints.get(error.errno or 0),
    )


def _is_in_cache(path: str) -> bool:
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        if os.path.exists(os.path.join(path, CACHE_OF)):
            return True
    return False


def _existing(path: str) -> str:
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path
