"""The keys that servers on loopback ask for, where they are a secret: in a file of the user's.

A server that runs commands must not do so for other users of the machine, nor for a web page. So
`aflow dev` makes keys of its own; servers of tests, which live for minutes, have constant ones.
"""

import os
import secrets
from pathlib import Path

import msgspec
from msgspec import Struct


class Keys(Struct, frozen=True):
    """An access key and its secret."""

    access_key: str
    secret_key: str


def read_keys(path: Path) -> Keys:
    return msgspec.json.decode(path.read_bytes(), type=Keys)


def make_keys(path: Path) -> Keys:
    """The keys in the file; new ones, if there is none."""
    try:
        return read_keys(path)
    except FileNotFoundError:
        keys = Keys(f"AFLOW{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30))
    write_private(path, msgspec.json.encode(keys))
    return keys


def write_private(path: Path, content: bytes) -> None:
    """Write a file that nobody else can read, whole or not at all."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with open(new, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
    new.rename(path)
