"""Every way in which a file of a datastore may be damaged: bits, cuts, frames, pages, all of it.

Places are chosen by what lies there: each part of each frame of a journal and a log, each page of
the database, the borders of a blob's blocks.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from engine.stores.frames import HEAD_BYTES, FrameReader
from engine.stores.journals import JOURNAL_MAGIC
from engine.stores.logs import LOG_MAGIC


@dataclass(frozen=True)
class Mutation:
    """One change of one file, or of two."""

    kind: str
    name: str
    files: tuple[str, ...]
    change: Callable[[Path], None]


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << at % 8)]))


def flip_unseen(path: Path, at: int) -> None:
    """As a program would that hides its traces; the time of the last change cannot be set."""
    before = path.stat()
    flip(path, at)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap(one: Path, other: Path) -> None:
    mine, theirs = one.read_bytes(), other.read_bytes()
    one.write_bytes(theirs)
    other.write_bytes(mine)


def replace_range(path: Path, start: int, stop: int, data: bytes) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:start] + data + whole[stop:])


def _of_file(kind: str, name: str, other: str) -> Iterator[Mutation]:
    """What happens to any file as a whole."""
    yield Mutation(kind, "removed", (name,), lambda s: (s / name).unlink())
    yield Mutation(kind, "emptied", (name,), lambda s: os.truncate(s / name, 0))
    if other:
        yield Mutation(kind, "swapped", (name, other), lambda s: swap(s / name, s / other))


def _of_bytes(kind: str, name: str, places: list[int], cuts: list[int]) -> Iterator[Mutation]:
    for at in places:
        yield Mutation(kind, f"bit of byte {at}", (name,), _at(flip, name, at))
        yield Mutation(kind, f"bit of byte {at}, unseen", (name,), _at(flip_unseen, name, at))
    for at in cuts:
        yield Mutation(kind, f"cut at {at}", (name,), _at(os.truncate, name, at))


def _at(change: Callable[[Path, int], None], name: str, at: int) -> Callable[[Path], None]:
    return lambda store: change(store / name, at)


def _blobs(store: Path, needed: list[str]) -> Iterator[Mutation]:
    for index, name in enumerate(needed):
        size = (store / name).stat().st_size
        borders = {b + d for b in range(4096, size, 4096) for d in (-1, 0)}
        places = sorted({0, size // 2, size - 1, *borders})
        cuts = sorted({1, size // 2, size - 1, *range(4096, size, 4096)} - {size, 0})
        yield from _of_bytes("blob", name, places, cuts)
        yield from _of_file("blob", name, needed[index - 1])


def _frames(store: Path, kind: str, magic: bytes) -> Iterator[Mutation]:
    names = sorted(str(p.relative_to(store)) for p in store.glob(f"runs/*/*/{kind}"))
    for index, name in enumerate(names):
        with FrameReader(str(store / name), magic) as reader:
            spans = [(at, at + HEAD_BYTES + len(payload)) for at, payload in reader.scan()]
        data = (store / name).read_bytes()
        yield from _of_bytes(kind, name, [0, 3], [1, 3, 4])
        for number, (start, stop) in enumerate(spans):
            body = start + HEAD_BYTES
            places = [start, start + 2, start + 3, start + 4, start + 7]
            places += [body, (body + stop) // 2, stop - 1]
            cuts = [start, start + 4, body, (body + stop) // 2, stop - 1]
            yield from _of_bytes(kind, name, places, [cut for cut in cuts if cut > 4])
            yield _range(kind, "frame of zeros", name, (start, stop), bytes(stop - start))
            yield _range(kind, "frame cut out", name, (start, stop), b"")
            if number:
                before = spans[number - 1][0]
                turned = data[start:stop] + data[before:start]
                yield _range(kind, "frames exchanged", name, (before, stop), turned)
        yield from _of_file(kind, name, names[index - 1])


def _range(kind: str, what: str, name: str, span: tuple[int, int], data: bytes) -> Mutation:
    title = f"{what} at {span[0]}"
    return Mutation(kind, title, (name,), lambda s: replace_range(s / name, *span, data))


def _pages(store: Path) -> Iterator[Mutation]:
    name = "metadata.db"
    data = (store / name).read_bytes()
    size = int.from_bytes(data[16:18], "big")
    for start in range(0, len(data), size):
        stop = start + size
        places = [start + d for d in (0, 1, 3, 5, 7, 8, 20, 60, 100, size // 2)]
        places += range(stop - 300, stop, 23)  # rows fill a page from its end
        cuts = [start, start + size // 2] if start else [size // 2]
        yield from _of_bytes("database", name, places, cuts)
        yield _range("database", "page of zeros", name, (start, stop), bytes(size))
        if start:
            turned = data[start:stop] + data[start - size : start]
            yield _range("database", "pages exchanged", name, (start - size, stop), turned)
    yield from _of_file("database", name, "")


def mutations_of(store: Path, needed: list[str]) -> Iterator[Mutation]:
    """Every mutation of a datastore; `needed` are the blobs that its manifests name."""
    yield from _blobs(store, needed)
    yield from _frames(store, "journal", JOURNAL_MAGIC)
    yield from _frames(store, "log", LOG_MAGIC)
    yield from _pages(store)


def sample(found: list[Mutation], each: int, seed: int) -> list[Mutation]:
    """So many mutations of each kind and each way."""
    chance = Random(seed)
    by_way: dict[tuple[str, str], list[Mutation]] = {}
    for mutation in found:
        way = mutation.name.rpartition(" at ")[0] or mutation.name.partition(" of byte")[0]
        way += "unseen" * mutation.name.endswith("unseen")
        by_way.setdefault((mutation.kind, way), []).append(mutation)
    return [m for group in by_way.values() for m in chance.sample(group, min(each, len(group)))]
