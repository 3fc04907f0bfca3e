"""Directories for the tests of packages."""

import os
from collections.abc import Mapping
from pathlib import Path

from engine.package.tree import Tree, look

PY = (".py",)
OLD_NS = 1_000_000_000_000_000_000


def plant(root: Path, files: Mapping[str, str]) -> Path:
    """Write files, given by relative path."""
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def age(root: Path) -> None:
    """Let every file have been written long ago."""
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, ns=(OLD_NS, OLD_NS))


def kept(root: Path) -> list[str]:
    return paths(look(str(root), PY))


def paths(tree: Tree) -> list[str]:
    return sorted([*tree.files, *tree.links])
