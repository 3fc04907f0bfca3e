"""What may be the key of a blob: safe names joined by slashes. Pure."""

import re

from engine.errors import UnsafeNameError
from engine.ids import SAFE_NAME, safe_name

KEY_MAX = 1024  # S3's limit, in bytes; a safe name has one byte a character

_PART = SAFE_NAME.pattern.removesuffix(r"\Z")
_SAFE_KEY = re.compile(f"{_PART}(?:/{_PART})*")


def checked_key(key: str) -> str:
    """Return `key` if each of its parts is a safe name and the whole is not too long.

    Raises:
        UnsafeNameError: it is not.
    """
    if len(key) > KEY_MAX:
        raise UnsafeNameError("blob's key", key[:80], problem=f"is longer than {KEY_MAX:,}")
    if not _SAFE_KEY.fullmatch(key) or ".." in key:
        for part in key.split("/"):
            safe_name(part, what="part of a blob's key")  # one of them is not, and is told
    return key
