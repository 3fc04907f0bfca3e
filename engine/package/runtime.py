"""aflow itself and what it needs, of this environment, as one archive for machines that lack it.

Distributions are taken as they are installed, native code with them, so the other side must have
the same minor version of Python on the same kind of platform: `python_tag` names both. Left out are
the parts that only a terminal or a test needs, and the SDK's descriptions of services that a task
does not call: 1,400 of them are most of its size. Modules come compiled as well: a container that
compiles them takes a second for it, each time.
"""

import gzip
import hashlib
import importlib.util
import io
import marshal
import re
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path, PurePath

from engine.errors import ConfigError

DISTRIBUTION = "aflow-engine"
_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^]]*)\])?")
_EXTRA = re.compile(r"extra\s*==\s*[\"']([^\"']+)")
_FOR_TERMINALS = frozenset(("rich", "click", "pygments", "markdown-it-py", "mdurl"))
_OURS_LEFT_OUT = frozenset(("cli", "testing", "__pycache__"))
_SERVICES = frozenset(("s3", "sts", "sso", "sso-oidc", "signin"))
_SDK_DATA = "botocore", "data"
_SOURCES_OF_NATIVE_CODE = (".c", ".h", ".pyx", ".pxd", ".pyi", ".hash")
_LEVEL = 1  # a sixth larger than by 6, and four times as fast


def python_tag() -> str:
    """Which Python on which platform; as engine.container.bootstrap says it of an image's."""
    libc = "musl" if "musl" in str(sysconfig.get_config_var("HOST_GNU_TYPE") or "") else "glibc"
    return f"{sys.implementation.cache_tag} {sysconfig.get_platform()} {libc}"


class Runtime:
    """The files of the package: `name` in the archive -> where it lies here.

    Raises:
        ConfigError: aflow is not installed as a distribution, so nobody knows what it needs.
    """

    def __init__(self) -> None:
        self.files = dict(sorted(_files()))

    def stamp(self) -> str:
        """Equal for equal files, as far as `stat` tells, on one machine."""
        hasher = hashlib.sha256(python_tag().encode())
        for name, path in self.files.items():
            found = path.stat()
            hasher.update(f"{name}\0{path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
        return hasher.hexdigest()

    def pack(self) -> bytes:
        """A tar of the files, compressed, with what their Python compiles to."""
        target = io.BytesIO()
        with (
            gzip.GzipFile(fileobj=target, mode="wb", compresslevel=_LEVEL, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as tar,
        ):
            for name, path in self.files.items():
                data = path.read_bytes()
                _add(tar, name, data)
                if name.endswith(".py"):
                    with suppress(SyntaxError, ValueError):  # a template, or of another Python
                        _add(tar, _compiled_name(name), _compiled(data, name))
        return target.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(data))


def _compiled_name(name: str) -> str:
    return importlib.util.cache_from_source(name, optimization="")


def _compiled(source: bytes, name: str) -> bytes:
    """A .pyc that is taken without a look at the source, whose times the archive does not keep.

    Source: PEP 552, "Deterministic pycs": flags 0b01 are hash-based, unchecked.
    """
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    head = importlib.util.MAGIC_NUMBER + (0b01).to_bytes(4, "little")
    return head + importlib.util.source_hash(source) + marshal.dumps(code)


def _files() -> Iterator[tuple[str, Path]]:
    root = Path(__file__).parents[1]
    for path in root.rglob("*"):
        inside = path.relative_to(root)
        if path.is_file() and _OURS_LEFT_OUT.isdisjoint(inside.parts):
            yield str(PurePath(root.name, inside)), path
    for distribution in _needed(DISTRIBUTION):
        for file in distribution.files or ():
            if ".." not in file.parts and _is_wanted(file.parts):
                path = Path(str(distribution.locate_file(file)))
                if path.is_file():
                    yield str(PurePath(*file.parts)), path


def _is_wanted(parts: tuple[str, ...]) -> bool:
    if "__pycache__" in parts or parts[-1].endswith(_SOURCES_OF_NATIVE_CODE):
        return False
    if parts[:1] == ("zstandard",) and parts[-1].startswith("_cffi"):
        return False  # its second way to do the same
    is_service = parts[:2] == _SDK_DATA and len(parts) > 3
    return not is_service or parts[2] in _SERVICES


def _needed(name: str) -> list[metadata.Distribution]:
    """The distributions that `name` needs in a container, and theirs."""
    try:
        todo = list(_required(metadata.distribution(name), frozenset()))
    except metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"{DISTRIBUTION} is not installed here, so what a container needs is not known",
            hint="install it (pip install -e .), or start aflow by bin/aflow",
        ) from error
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, extras = wanted = todo.pop()
        if wanted in seen or name in _FOR_TERMINALS:
            continue
        seen.add(wanted)
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another platform or version of Python
            continue
        todo += _required(found[name], extras)
    return [found[name] for name in sorted(found)]


def _required(
    distribution: metadata.Distribution, extras: frozenset[str]
) -> Iterable[tuple[str, frozenset[str]]]:
    """What a distribution requires with these of its extras, and with which extras of theirs."""
    for requirement in distribution.requires or ():
        match = _REQUIREMENT.match(requirement)
        of = _EXTRA.search(requirement)
        if match and (of is None or _normal(of[1]) in extras):
            chosen = frozenset(_normal(e) for e in (match[2] or "").split(",") if e.strip())
            yield _normal(match[1]), chosen


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
