"""`.gitignore` and `.aflowignore`: which names they leave out, as git reads them.

A file speaks for its directory and all below; the deepest one that says anything wins, and in one
directory `.aflowignore` wins. The ones above the flow's directory count too, up to the root of its
git repository: what a project keeps out of git, such as keys, is kept out of packages as well.
The matching itself is pathspec's, imported when a rule has to be asked: 9 ms.
"""

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Self

IGNORE_FILES = (".aflowignore", ".gitignore")


class Rules:
    """The ignore files that hold in a directory. `is_known` tells that they are as last time."""

    def __init__(
        self,
        folder: str,
        paths: Sequence[str],
        above: "Rules | None" = None,
        *,
        is_known: bool = True,
    ) -> None:
        self._folder = folder
        self._own = paths
        self._above = above
        self.is_known = is_known
        self._matchers: list[Any] | None = None  # Any: pathspec is imported late

    @classmethod
    def above(cls, root: str) -> Self:
        """The rules of the directories above `root`, if it is in a git repository below its top."""
        folders: list[str] = []
        folder = root
        while not os.path.lexists(os.path.join(folder, ".git")):
            parent = os.path.dirname(folder)
            if parent == folder:
                return cls(root, ())
            folders.append(parent)
            folder = parent
        rules = cls(root, ())
        for folder in reversed(folders):
            there = [n for n in IGNORE_FILES if os.path.isfile(os.path.join(folder, n))]
            rules = rules.below(folder, there)
        return rules

    def below(self, folder: str, names: Sequence[str], *, is_known: bool = True) -> Self:
        """The rules of a directory under this one that has the ignore files `names`."""
        if not names and is_known == self.is_known:
            return self
        paths = [os.path.join(folder, name) for name in names]
        return type(self)(folder, paths, self, is_known=is_known)

    @property
    def paths(self) -> list[str]:
        """The ignore files, the nearest first."""
        return [*self._own, *(self._above.paths if self._above else ())]

    @property
    def is_empty(self) -> bool:
        return not self._own and (self._above is None or self._above.is_empty)

    def ignore(self, path: str, *, is_folder: bool) -> bool:
        """Whether the rules leave out an absolute path under their directory."""
        name = os.path.relpath(path, self._folder) + ("/" if is_folder else "")
        for matcher in self._matching():
            says = matcher.check_file(name).include
            if says is not None:
                return bool(says)
        return self._above is not None and self._above.ignore(path, is_folder=is_folder)

    def _matching(self) -> list[Any]:  # Any: as above
        if self._matchers is None:
            self._matchers = [_matcher(path) for path in self._own]
        return self._matchers


def _matcher(path: str) -> Any:  # Any: pathspec is imported late
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return import_module("pathspec").GitIgnoreSpec.from_lines(file)
