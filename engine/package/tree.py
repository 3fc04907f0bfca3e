"""Which files of a directory are a flow's code.

Kept are regular files whose names end with one of the suffixes, and symbolic links to something
that is kept. Left out are names that begin with a dot, virtual environments, datastores, what
`.gitignore` and `.aflowignore` say, and links that lead out of the directory: nothing is read from
elsewhere. The flow's own file is always kept.

A look costs one `scandir` per directory and one `stat` per file; no file is opened. What an earlier
look decided (`Known`) is not decided again while the ignore files stand as they did, which spares
most starts the import of the matcher.
"""

import os
from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct, field

from engine.errors import CodePackageError
from engine.package.ignores import IGNORE_FILES, Rules

ENTRIES_MAX = 10_000
"""Names looked at, kept or not: about 20 ms. A home directory has more, a project has not."""

_SKIPPED = frozenset(("__pycache__",))
_NO_CODE = (frozenset(("pyvenv.cfg",)), frozenset(("format", "blobs", "runs")))
"""What virtual environments and datastores hold, whatever they are called."""


class Stamp(Struct, frozen=True):
    """What `stat` says of a file. While it stands, the file has not been written to."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    is_executable: bool = False


class Known(Struct, frozen=True):
    """What an earlier look at the same directory found: paths are relative, with slashes.

    `rules` are the stamps of the ignore files by directory; `verdicts` tell of every name that a
    rule had to be asked about whether it is kept.
    """

    rules: Mapping[str, Mapping[str, Stamp]] = field(default_factory=dict)
    verdicts: Mapping[str, bool] = field(default_factory=dict)


class Tree(Struct, frozen=True):
    """The code under `root`. Paths are relative to it, with slashes, and in order.

    `links` are symbolic links with their targets, relative to the link. `left_out` gives the reason
    of what was not taken though its name would be.
    """

    root: str
    files: Mapping[str, Stamp]
    links: Mapping[str, str]
    left_out: Mapping[str, str]
    known: Known

    @property
    def size_bytes(self) -> int:
        return sum(stamp.size_bytes for stamp in self.files.values())


def look(
    root: str,
    suffixes: Collection[str],
    *,
    always: Collection[str] = (),
    known: Known | None = None,
) -> Tree:
    """List the code under a directory.

    Args:
        root: the directory.
        suffixes: the ends of the names that are kept: ".py".
        always: relative paths that are kept whatever the rules say.
        known: what an earlier look found.

    Raises:
        CodePackageError: there are too many names, or the directory cannot be read.
    """
    looking = _Look(os.path.realpath(root), tuple(suffixes), frozenset(always), known or Known())
    try:
        looking.walk("", Rules.above(looking.root))
    except OSError as error:
        raise CodePackageError(
            root, problem=f"cannot be read: {error.filename}: {error.strerror}"
        ) from error
    return looking.done()


class _Look:
    """One look; collects what it finds."""

    def __init__(
        self, root: str, suffixes: tuple[str, ...], always: frozenset[str], known: Known
    ) -> None:
        self.root = root
        self._suffixes = suffixes
        self._always = always
        self._known = known
        self._entries = 0
        self._files: dict[str, Stamp] = {}
        self._folders: set[str] = set()
        self._links: dict[str, str] = {}
        self._left_out: dict[str, str] = {}
        self._rules: dict[str, dict[str, Stamp]] = {}
        self._verdicts: dict[str, bool] = {}

    def walk(self, folder: str, rules: Rules) -> None:
        names = self._names(folder)
        rules = self._rules_of(folder, names, rules)
        for name, entry in names.items():
            path = f"{folder}{name}"
            if name.startswith(".") or name in _SKIPPED:
                continue
            if entry.is_symlink():
                if name.endswith(self._suffixes) or entry.is_dir():
                    self._links[path] = entry.path
            elif entry.is_dir(follow_symlinks=False):
                if self._is_kept(f"{path}/", rules):
                    self._folders.add(path)
                    self.walk(f"{path}/", rules)
            elif path in self._always or (
                name.endswith(self._suffixes) and self._is_kept(path, rules)
            ):
                if entry.is_file(follow_symlinks=False):
                    self._files[path] = _stamp(entry)
                else:
                    self._left_out[path] = "not a regular file"

    def _names(self, folder: str) -> dict[str, "os.DirEntry[str]"]:
        with os.scandir(os.path.join(self.root, folder)) as entries:
            names = {entry.name: entry for entry in entries}
        self._entries += len(names)
        if self._entries > ENTRIES_MAX:
            raise CodePackageError(
                self.root,
                problem=f"holds more than {ENTRIES_MAX:,} files and directories",
                hint="move the flow to a directory of its own, or name what is no code "
                "in .aflowignore",
            )
        # What the directory holds may be left out; what it is, is the user's choice.
        return {} if folder and any(marks <= names.keys() for marks in _NO_CODE) else names

    def _rules_of(
        self, folder: str, names: Mapping[str, "os.DirEntry[str]"], rules: Rules
    ) -> Rules:
        own = {n: _stamp(names[n]) for n in IGNORE_FILES if n in names and names[n].is_file()}
        if not folder:
            own.update(_stamps_above(rules))
        if own:
            self._rules[folder] = own
        is_known = rules.is_known and own == self._known.rules.get(folder, {})
        here = [n for n in IGNORE_FILES if n in own]
        return rules.below(os.path.join(self.root, folder), here, is_known=is_known)

    def _is_kept(self, path: str, rules: Rules) -> bool:
        if rules.is_empty:
            return True
        kept = self._known.verdicts.get(path) if rules.is_known else None
        if kept is None:
            kept = not rules.ignore(os.path.join(self.root, path), is_folder=path.endswith("/"))
        self._verdicts[path] = kept
        return kept

    def done(self) -> Tree:
        links = dict(self._kept_links())
        known = Known(self._rules, self._verdicts)
        files = dict(sorted(self._files.items()))
        left_out = dict(sorted(self._left_out.items()))
        return Tree(self.root, files, links, left_out, known)

    def _kept_links(self) -> Iterator[tuple[str, str]]:
        for path, link in sorted(self._links.items()):
            target = os.path.realpath(link)
            inside = os.path.relpath(target, self.root)
            if inside == ".." or inside.startswith("../"):
                self._left_out[path] = f"leads out of the directory, to {target}"
            elif inside in self._files or inside in self._folders:
                yield path, os.path.relpath(target, os.path.dirname(link))
            else:
                self._left_out[path] = f"leads to {inside}, which is not kept"


def _stamp(entry: "os.DirEntry[str]") -> Stamp:
    return _stamp_of(entry.stat())


def _stamp_of(found: os.stat_result) -> Stamp:
    return Stamp(
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_ino,
        bool(found.st_mode & 0o100),
    )


def _stamps_above(rules: Rules) -> Mapping[str, Stamp]:
    return {path: _stamp_of(os.stat(path)) for path in rules.paths}
