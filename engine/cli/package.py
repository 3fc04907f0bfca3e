"""`aflow package list|save|info`: the code of a flow, or the code that a run was started with.

Nothing in a package is executed: a flow is loaded to find its directory, a run's is read as bytes.
"""

import gzip
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import Struct

from engine.cli import times
from engine.cli.escapes import safe
from engine.cli.options import Session, package_suffixes_option, session, verb
from engine.errors import CodePackageError, NotFoundError, UsageError
from engine.package.bundle import SIZE_MAX, Bundle, pack, suffixes_of

if TYPE_CHECKING:
    from engine.flow.spec import FlowSpec

F = TypeVar("F", bound=Callable[..., Any])  # Any: a callback's own signature
_GZIP = (".tgz", ".tar.gz")
_WHAT = click.argument("words", nargs=-1, metavar="[FLOW|RUN]")


def _suffixes(function: F) -> F:
    """Give a verb the option --package-suffixes."""
    vars(function).setdefault("__click_params__", []).append(package_suffixes_option())
    return function


class Package(Struct, frozen=True):
    """A package and what is said of it."""

    name: str
    bundle: Bundle
    fields: Mapping[str, Any]  # Any: JSON
    left_out: Mapping[str, str]


@verb(
    "info",
    examples="aflow package info flow.py\naflow package info @latest --json",
    json=True,
)
@_suffixes
@_WHAT
def info(words: tuple[str, ...]) -> None:
    """Say what the package of FLOW holds, or the one that RUN was started with."""
    found = _find(words)
    sizes = found.bundle.sizes()
    fields = {
        **found.fields,
        "files": len(sizes),
        "content_bytes": sum(sizes.values()),
        "left_out": dict(found.left_out),
    }
    if session().json:
        print(json.dumps({"schema": "aflow/package/1", **fields}))
    else:
        largest = sorted(sizes, key=lambda path: (-sizes[path], path))[:3]
        print(f"{found.name}")
        print(f"  script    {safe(str(fields['script']))}")
        print(f"  files     {len(sizes):,}, {times.size(sum(sizes.values()))}")
        print(f"  package   {times.size(len(found.bundle.data))}, {fields['digest']}")
        print(f"  suffixes  {','.join(fields['suffixes'])}")
        for path in largest:
            print(f"  largest   {safe(path)}, {times.size(sizes[path])}")
        for path, reason in found.left_out.items():
            print(f"  left out  {safe(path)}: {safe(reason)}")
    _warn(found)


@verb(
    "list",
    examples="aflow package list flow.py\naflow package list @latest",
    json=True,
)
@_suffixes
@_WHAT
def list_(words: tuple[str, ...]) -> None:
    """List the files in the package, one a line."""
    found = _find(words)
    if session().json:
        files = [{"path": p, "size_bytes": n} for p, n in found.bundle.sizes().items()]
        print(json.dumps({"schema": "aflow/package-files/1", **found.fields, "files": files}))
    else:
        for path in found.bundle.files:
            print(safe(path))
    _warn(found)


@verb(
    "save",
    examples="aflow package save flow.py code.tar\naflow package save @latest code.tgz",
    json=True,
)
@_suffixes
@click.argument("words", nargs=-1, metavar="[FLOW|RUN] FILE")
def save(words: tuple[str, ...]) -> None:
    """Write the package to FILE: a tar, compressed if its name ends with .tgz or .tar.gz."""
    if not words:
        raise UsageError("no file is named", hint="aflow package save flow.py code.tar")
    *what, file = words
    found = _find(tuple(what))
    data = found.bundle.data
    # No time and no name in the head: equal trees are equal files.
    written = gzip.compress(data, mtime=0) if file.endswith(_GZIP) else data
    making = Path(f"{file}.{os.getpid()}.new")
    try:
        making.write_bytes(written)
        making.replace(file)
    finally:
        making.unlink(missing_ok=True)
    if session().json:
        fields = {**found.fields, "file": file, "size_bytes": len(written)}
        print(json.dumps({"schema": "aflow/package-saved/1", **fields}))
    else:
        print(f"{file}: {len(found.bundle.files):,} files, {times.size(len(written))}")
    _warn(found)


def _find(words: tuple[str, ...]) -> Package:
    now = session()
    if len(words) > 1:
        raise UsageError(f"{words[1]!r} is one word too many")
    if words and not _is_flow(words[0]):
        return _of_run(now, words[0])
    if now.flow_class is not None and not words:
        return _of_flow(now, now.flow_class)
    if not words:
        return _of_run(now, "@latest")
    from engine.worker.loader import load

    return _of_flow(now, load(words[0]))


def _is_flow(word: str) -> bool:
    """A file or `module:Flow`, and not the name of a run."""
    return word.endswith(".py") or ":" in word


def _of_flow(now: Session, flow: "type[FlowSpec]") -> Package:
    from engine.runtime.code import source_of, tree_of
    from engine.stores.directory import digest_of

    suffixes = suffixes_of(now.config.package_suffixes)
    if not suffixes:
        raise CodePackageError(flow.__name__, problem="is not packaged: package_suffixes is none")
    source = source_of(flow)
    tree = tree_of(source, suffixes)
    bundle = Bundle(pack(tree))
    fields = {
        "flow": flow.__name__,
        "run": None,
        "root": tree.root,
        "script": source.script,
        "digest": digest_of((bundle.data,)),
        "package_bytes": len(bundle.data),
        "suffixes": list(suffixes),
    }
    return Package(f"{flow.__name__} in {safe(tree.root)}", bundle, fields, tree.left_out)


def _of_run(now: Session, text: str) -> Package:
    from engine.cli.references import find_run
    from engine.client.code import code_of, why_none
    from engine.client.reader import Reader

    with Reader.open(now.config) as reader:
        run = find_run(reader, text, flow=now.flow_name)
        code = code_of(reader, run.flow, run.run_id)
        name = f"{run.flow}/{run.run_id}"
        if code is None:
            why = why_none(reader, run.flow, run.run_id)
            raise NotFoundError(f"run {name} has no code package: {why}")
        bundle = Bundle(code.data())
    fields = {
        "flow": run.flow,
        "run": name,
        "root": None,
        "script": code.script_name,
        "digest": code.digest,
        "package_bytes": code.size,
        "suffixes": code.info["suffixes"],
    }
    return Package(name, bundle, fields, {})


def _warn(found: Package) -> None:
    size = sum(found.bundle.sizes().values())
    if size > SIZE_MAX:
        click.echo(
            f"warning: {times.size(size)} of code is more than a run packages "
            f"({SIZE_MAX / 1e6:,.0f} MB): name what is no code in .aflowignore",
            err=True,
        )


class _Actions(click.Group):
    """The actions, with a suggestion for a slip."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise UsageError(
                f"there is no action {args[0]!r}", hint=f"one of {', '.join(self.commands)}"
            )
        return super().resolve_command(ctx, args)


command = _Actions(
    "package",
    help="List, save and describe the code package of a flow, or of a run. [default: @latest]",
    commands=dict[str, click.Command](info=info, list=list_, save=save),
)
