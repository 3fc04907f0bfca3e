"""The code of a run: its flow's directory as a package in the store, recorded in the journal.

An unchanged directory costs a look at its names and one question to the store; a changed one is
read and stored before the run begins. A run is never refused for want of a package: what forbids
one is recorded instead, and told where the user can mend it.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
from msgspec import Struct

from engine.errors import CodePackageError
from engine.flow.spec import FlowSpec
from engine.package.bundle import SIZE_MAX, pack
from engine.package.index import Remembered
from engine.package.tree import Known, Tree, look
from engine.runtime.stores import Stores
from engine.stores.artifacts import save_values
from engine.stores.directory import digest_of
from engine.stores.manifest import Entries, Manifest
from engine.worker.loader import target_of

CODE_STEP = "_code"
PACKAGE = "package"
_INSTALLED = frozenset(("site-packages", "dist-packages"))


class Source(Struct, frozen=True):
    """Where a flow's code lies: the directory, and the flow's own file in it."""

    root: str
    script: str


def source_of(flow: type[FlowSpec]) -> Source:
    """Find the directory that a flow's imports start from.

    That is the directory of its file; of a flow named `package.module:Flow` the one that holds
    `package`.

    Raises:
        CodePackageError: the flow has no file, or is part of an installed package.
    """
    target = target_of(flow)
    if target is None:
        raise CodePackageError(
            flow.__name__,
            problem="was defined in a notebook, an interactive session or a function: its class "
            "travels by value, and there is no directory to package",
            hint="write the flow to a file",
        )
    source = target.rpartition(":")[0]
    file = os.path.realpath(source if os.sep in source else str(_file_of(flow)))
    depth = 0 if os.sep in source else source.count(".")
    parents = Path(file).parents
    root = parents[min(depth + (Path(file).name == "__init__.py"), len(parents) - 1)]
    if not _INSTALLED.isdisjoint(root.parts):
        raise CodePackageError(
            flow.__name__, problem="is part of an installed package, which is not packaged again"
        )
    return Source(str(root), os.path.relpath(file, root))


def _file_of(flow: type[FlowSpec]) -> str | None:
    return getattr(sys.modules.get(flow.__module__), "__file__", None)


def tree_of(source: Source, suffixes: tuple[str, ...], known: Known | None = None) -> Tree:
    """List the code of a flow.

    Raises:
        CodePackageError: the directory holds too much, or cannot be read.
    """
    return look(source.root, suffixes, always=(source.script,), known=known)


def code_of(
    flow: type[FlowSpec],
    run_id: str,
    stores: Stores,
    suffixes: tuple[str, ...],
    *,
    now_ns: int,
) -> tuple[dict[str, Any], str | None]:  # Any: plain msgpack values
    """Store the flow's package and describe it, as the field `code` of `run-began` does.

    Args:
        flow: the flow's class.
        run_id: the run.
        stores: where the package goes.
        suffixes: the ends of the names that are code; none to package nothing.
        now_ns: nanoseconds since 1970, by the clock of the file system.

    Returns:
        The field, and what the user should be told, if he can mend something.

    Raises:
        StoreAccessError: the store takes no more.
    """
    described: dict[str, Any] = {"target": target_of(flow)}
    if not suffixes:
        return {**described, "problem": "package_suffixes is none"}, None
    try:
        source = source_of(flow)
        packed, files = _package(flow.__name__, source, suffixes, stores, now_ns)
    except CodePackageError as error:
        is_mendable = error.hint is not None and described["target"] is not None
        note = f"the code was not packaged: {error.message}; {error.hint}"
        return {**described, "problem": error.message}, note if is_mendable else None
    manifest = Manifest(flow.__name__, run_id, CODE_STEP, "0", 0, Entries(packed))
    return {
        **described,
        "script": os.fsencode(source.script).decode(errors="replace"),
        "suffixes": list(suffixes),
        "files": files,
        "package": manifest.pack(),
    }, None


def _package(
    flow: str, source: Source, suffixes: tuple[str, ...], stores: Stores, now_ns: int
) -> tuple[bytes, int]:
    """The packed manifest of a flow's package, made anew only if the tree has changed."""
    name = digest_of((msgpack.packb([source.root, source.script, suffixes]),))
    path = stores.layout.package_index(name)
    remembered = Remembered()
    with suppress(OSError):
        remembered = Remembered.unpack(path.read_bytes(), source.root, suffixes)
    tree = tree_of(source, suffixes, remembered.known)
    files = len(tree.files) + len(tree.links)
    if remembered.is_of(tree) and _is_stored(remembered.package, stores):
        return remembered.package, files
    if tree.size_bytes > SIZE_MAX:
        raise CodePackageError(
            source.root,
            problem=f"holds {tree.size_bytes / 1e6:,.0f} MB of code in {files:,} files; up to "
            f"{SIZE_MAX / 1e6:,.0f} MB are packaged",
            hint="name what is no code in .aflowignore, or choose with --package-suffixes",
        )
    entries = save_values({PACKAGE: pack(tree)}, stores.blobs, step=CODE_STEP)
    packed = Manifest(flow, "", CODE_STEP, "0", 0, entries).pack()
    stores.layout.write_package_index(name, Remembered.of(tree, suffixes, now_ns, packed).pack())
    return packed, files


def _is_stored(packed: bytes, stores: Stores) -> bool:
    entry = Entries(packed)[PACKAGE]
    return entry.digest is None or stores.blobs.exists(entry.digest)
