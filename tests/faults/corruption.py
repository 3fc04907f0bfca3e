"""R-07: all that a run leaves is damaged in turn, in every way, and is told before it is used.

python -m tests.faults.corruption [--only KIND] [--resume-every N]    every mutation; prints counts

The datastore holds a run that failed and the run that resumed it: arrays, pickles with and without
buffers, compressed values, a packed foreach whose items are blobs, reused results. A mutation is
judged by four: fsck lists the damaged files and no other; a reader gets each value as it was stored
or an error of the store; a damaged database is mended from the journals; and for every N-th, runs
that go on from the damaged ones end with the artifacts of an undisturbed one.
"""

import argparse
import os
import pickle
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from engine.client.audit import Audit
from engine.client.reader import Reader
from engine.errors import EngineError
from engine.scheduler.facts import fact_of
from engine.scheduler.journal import SucceededRecord, decode
from engine.stores.artifacts import load_item
from engine.stores.frames import HEAD_BYTES, FrameReader
from engine.stores.journals import JOURNAL_MAGIC, JournalReader
from engine.stores.layout import open_layout
from engine.stores.logs import LOG_MAGIC
from engine.stores.manifest import Manifest
from engine.stores.metadata.base import TaskRecord
from engine.stores.metadata.rebuild import reindex
from tests.faults.crashes import COMMAND, ROOT

FLOW_NAME = "Varied"
FLOW = """
import os
import numpy as np
from engine import FlowSpec, step


class Varied(FlowSpec):
    @step
    def start(self):
        self.table = np.arange(20_000)
        self.text = " ".join(map(str, range(5000)))
        self.model = {"weights": np.ones(9000), "name": ("a", 1)}
        self.pairs = [(i, i * i) for i in range(900)]
        self.raw = bytes(range(256)) * 20
        self.small = {"a": 1}
        self.items = [np.full(9000, k) for k in range(2)] + [3]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        print("working on", self.index, "." * 300)
        self.part = float(np.sum(self.input))
        self.big = bytes([self.index + 1]) * 3000
        self.next(self.join)

    @step
    def join(self, inputs):
        print("joining", len(list(inputs)))
        if not os.path.exists("mended"):
            raise RuntimeError("not yet")
        self.total = sum(i.part for i in inputs)
        self.all = b"".join(i.big for i in inputs)
        self.table = inputs[0].table
        self.next(self.end)

    @step
    def end(self):
        print("total", self.total)
        self.last = self.table[::-1].copy()
"""
ITEMS = 3
KINDS = ("blob", "journal", "log", "database")
DATABASE_ONLY = ("tags", "ordinal", "pid")
"""Columns that no journal tells: what damage makes of them cannot be noticed."""

Values = dict[tuple[str, str, str, str], bytes]
"""(run, step, task, artifact) to the pickled value."""


@dataclass(frozen=True)
class Mutation:
    """One change of one file, or of two."""

    kind: str
    name: str
    files: tuple[str, ...]
    change: Callable[[Path], None]


@dataclass
class Place:
    """A directory with the flow and a datastore of two runs."""

    folder: Path
    values: Values = field(default_factory=dict)
    rows: dict[str, list[tuple[object, ...]]] = field(default_factory=dict)
    whole: dict[str, list[tuple[object, ...]]] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def call(self, *words: str) -> tuple[int, str]:
        """Run a command; return its exit code and what it said."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("AFLOW_")}
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=self.folder,
            env={**kept, "PYTHONPATH": str(ROOT), "AFLOW_DATASTORE": str(self.store)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    @classmethod
    def make(cls, folder: Path) -> "Place":
        folder.mkdir(parents=True, exist_ok=True)
        place = cls(folder)
        (folder / "varied.py").write_text(FLOW)
        code, said = place.call("run", "varied.py", "--max-workers", "2")
        assert code == 1, said
        (folder / "mended").touch()
        code, said = place.call("resume", "--max-workers", "2")
        assert code == 0, said
        place.values, errors = place.read()
        assert not errors, errors
        place.rows, place.whole = place.dump(), place.dump(whole=True)
        return place

    @property
    def runs(self) -> list[str]:
        return sorted(os.listdir(self.store / "runs" / FLOW_NAME))

    # -- those who read ----------------------------------------------------------------------

    def audit(self, *, read_data: bool) -> set[str]:
        """The files that fsck lists."""
        layout = open_layout(self.store)
        found = Audit(layout, layout.metadata, read_data=read_data)
        return {damage.path for damage in found.damages()}

    def read(self) -> tuple[Values, list[EngineError]]:
        """Every value of every task of every run, and the errors in the places of others."""
        values: Values = {}
        errors: list[EngineError] = []
        with Reader.at(str(self.store)) as reader:
            for run_id in self.runs:
                try:
                    tasks = list(reader.tasks(FLOW_NAME, run_id))
                    reader.parameters(FLOW_NAME, run_id)
                except EngineError as error:
                    errors.append(error)
                    continue
                for task in tasks:
                    try:
                        entries = reader.entries(task)
                        reader.failure(task)
                        list(reader.lines(task))
                        self._read_items(task, values, errors)
                    except EngineError as error:
                        errors.append(error)
                        continue
                    for name in entries:
                        try:
                            value = pickle.dumps(reader.value(entries[name]), 5)
                        except EngineError as error:
                            errors.append(error)
                        else:
                            values[run_id, task.step, task.task_id, name] = value
        return values, errors

    def _read_items(self, task: TaskRecord, values: Values, errors: list[EngineError]) -> None:
        """The items of a foreach, which only its children load."""
        layout = open_layout(self.store)
        with JournalReader(str(layout.journal(task.flow, task.run_id))) as journal:
            record = decode(journal.read(task.result)) if task.result else None
        if not isinstance(record, SucceededRecord):
            return
        items = Manifest.unpack(record.manifest).items
        for index in range(ITEMS):
            if items is None:
                return
            try:
                value = load_item(items, index, layout.blob_directory())
                key = task.run_id, task.step, task.task_id, f"item {index}"
                values[key] = pickle.dumps(value, 5)
            except EngineError as error:
                errors.append(error)

    def dump(self, *, whole: bool = False) -> dict[str, list[tuple[object, ...]]]:
        """The rows of the database as SQLite itself reads them.

        Raises:
            sqlite3.DatabaseError: it cannot.
        """
        found: dict[str, list[tuple[object, ...]]] = {}
        with closing(sqlite3.connect(self.store / "metadata.db")) as connection:
            for table in ("runs", "tasks"):
                cursor = connection.execute(f"SELECT * FROM {table}")
                names = [column[0] for column in cursor.description]
                kept = [n for n, name in enumerate(names) if whole or name not in DATABASE_ONLY]
                rows = [tuple(row[n] for n in kept) for row in cursor]
                found[table] = sorted(rows, key=repr)
        return found

    # -- and what is changed -----------------------------------------------------------------

    def snapshot(self) -> None:
        shutil.copytree(self.store, self.folder / "kept")

    def restore(self) -> None:
        """Undo whatever was done; blobs that were not touched stay the files that they are."""
        kept = self.folder / "kept"
        for name in [p.relative_to(self.store) for p in self.store.rglob("*") if p.is_file()]:
            if not (kept / name).exists():
                (self.store / name).unlink()
        for path in (p for p in kept.rglob("*") if p.is_file()):
            mine = self.store / path.relative_to(kept)
            if not mine.exists() or mine.read_bytes() != path.read_bytes():
                mine.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, mine)
        for folder in (self.store / "runs" / FLOW_NAME).iterdir():
            if not (kept / folder.relative_to(self.store)).exists():
                shutil.rmtree(folder)


# -- mutations -----------------------------------------------------------------------------------


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


def _blobs(place: Place) -> Iterator[Mutation]:
    needed = _needed(place)
    for index, name in enumerate(needed):
        size = (place.store / name).stat().st_size
        borders = {b + d for b in range(4096, size, 4096) for d in (-1, 0)}
        places = sorted({0, size // 2, size - 1, *borders})
        cuts = sorted({1, size // 2, size - 1, *range(4096, size, 4096)} - {size, 0})
        yield from _of_bytes("blob", name, places, cuts)
        yield from _of_file("blob", name, needed[index - 1])


def _needed(place: Place) -> list[str]:
    """The blobs that manifests name: emptied, they are all listed."""
    names = sorted(str(p.relative_to(place.store)) for p in (place.store / "blobs").glob("??/*"))
    needed = []
    for name in names:
        aside = place.store / f"{name}.aside"
        (place.store / name).rename(aside)
        if name in place.audit(read_data=False):
            needed.append(name)
        aside.rename(place.store / name)
    return needed


def _frames(place: Place, kind: str, magic: bytes) -> Iterator[Mutation]:
    names = [f"runs/{FLOW_NAME}/{run_id}/{kind}" for run_id in place.runs]
    for index, name in enumerate(names):
        with FrameReader(str(place.store / name), magic) as reader:
            spans = [(at, at + HEAD_BYTES + len(payload)) for at, payload in reader.scan()]
        data = (place.store / name).read_bytes()
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


def _pages(place: Place) -> Iterator[Mutation]:
    name = "metadata.db"
    data = (place.store / name).read_bytes()
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


def mutations(place: Place) -> Iterator[Mutation]:
    yield from _blobs(place)
    yield from _frames(place, "journal", JOURNAL_MAGIC)
    yield from _frames(place, "log", LOG_MAGIC)
    yield from _pages(place)


# -- judges --------------------------------------------------------------------------------------


@dataclass
class Count:
    """What many mutations add up to."""

    mutations: Counter[str] = field(default_factory=Counter)
    harmless: int = 0
    unknowable: int = 0
    resumed: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{n} of {kind}s" for kind, n in self.mutations.items())
        return (
            f"{self.mutations.total()} mutations ({kinds}); {self.harmless} of them changed "
            f"nothing that a journal tells, but in {self.unknowable} a tag, an order or a process "
            f"id that only the database knows; {self.resumed} runs resumed, {self.refused} refused "
            f"with a hint, {len(self.problems)} problems"
        )


def trial(place: Place, mutation: Mutation, count: Count, *, resume: bool) -> None:
    """Make one change, ask all who read, and undo it."""
    before = {name: (place.store / name).read_bytes() for name in mutation.files}
    mutation.change(place.store)
    after = {
        name: path.read_bytes() if (path := place.store / name).exists() else None
        for name in mutation.files
    }
    if before == after:  # two frames or pages that are equal
        return
    try:
        problems = list(_judged(place, mutation, count, resume=resume))
    finally:
        place.restore()
    where = " and ".join(mutation.files)
    count.mutations[mutation.kind] += 1
    count.problems += [f"{where}, {mutation.name}: {problem}" for problem in problems]


def _judged(place: Place, mutation: Mutation, count: Count, *, resume: bool) -> Iterator[str]:
    is_index = mutation.kind == "database"
    expected = set(mutation.files)
    if is_index and _says_the_same(place):
        count.harmless += 1
        count.unknowable += place.dump(whole=True) != place.whole
        expected = set()
    for read_data in (False, True):
        listed = place.audit(read_data=read_data)
        # What is odd about the file and yet changes no fact may be listed.
        if listed != expected and not (is_index and not expected and listed == {"metadata.db"}):
            yield f"fsck lists {sorted(listed)} where {sorted(expected)} are damaged"
    yield from _read_wrong(place, mutation)
    if is_index:
        yield from _not_mended(place)
    elif resume and mutation.kind in ("blob", "journal"):
        yield from _resumed_wrong(place, mutation, count)


def _says_the_same(place: Place) -> bool:
    try:
        return place.dump() == place.rows
    except (sqlite3.Error, UnicodeDecodeError):
        return False


def _read_wrong(place: Place, mutation: Mutation) -> Iterator[str]:
    values, errors = place.read()
    wrong = [key for key, value in values.items() if place.values.get(key) != value]
    if wrong:
        yield f"other values were read than were written: {wrong}"
    if mutation.kind == "blob" and not errors:
        yield "no reader noticed"
    lost = len(place.values) - len(values)
    if mutation.kind == "blob" and lost > len(errors):
        yield f"{lost} values are gone, {len(errors)} errors were told"
    for error in errors:
        if not error.hint:
            yield f"no hint: {error}"


def _not_mended(place: Place) -> Iterator[str]:
    """The database is made again of the journals, or of a later version and not touched."""
    layout = open_layout(place.store)
    path = str(layout.metadata)
    try:
        reindex(layout, path, fact_of)
    except EngineError as error:
        if "later" not in (error.hint or ""):
            yield f"it cannot be made again: {error}"
        layout.metadata.unlink()  # what the hint says
    values, errors = place.read()
    if left := place.audit(read_data=False):
        yield f"made again, {left} is damaged"
    if errors or values != place.values:
        yield f"made again, the values are not what they were: {errors}"


def _resumed_wrong(place: Place, mutation: Mutation, count: Count) -> Iterator[str]:
    """Both runs are gone on from, by who knows nothing of the damage."""
    for run_id in place.runs[:2]:
        code, said = place.call("resume", "varied.py", run_id, "--max-workers", "2")
        if code == 6 and "hint:" in said and mutation.kind == "journal":
            count.refused += 1  # the run's parameters are gone
            continue
        if code:
            yield f"the resumed run ended with {code}: {said[-1500:]}"
            continue
        count.resumed += 1
        yield from _ended_otherwise(place)


def _ended_otherwise(place: Place) -> Iterator[str]:
    values, _ = place.read()
    last = place.runs[-1]
    model = place.runs[1]
    mine = {key[1:]: value for key, value in values.items() if key[0] == last}
    theirs = {key[1:]: value for key, value in place.values.items() if key[0] == model}
    if mine != theirs:
        yield f"the resumed run left other artifacts: {sorted(mine.keys() ^ theirs.keys())}"


def sample(found: list[Mutation], each: int, seed: int) -> list[Mutation]:
    """So many mutations of each kind and each way."""
    chance = random.Random(seed)
    by_way: dict[tuple[str, str], list[Mutation]] = {}
    for mutation in found:
        way = mutation.name.rpartition(" at ")[0] or mutation.name.partition(" of byte")[0]
        way += "unseen" * mutation.name.endswith("unseen")
        by_way.setdefault((mutation.kind, way), []).append(mutation)
    return [m for group in by_way.values() for m in chance.sample(group, min(each, len(group)))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=KINDS, help="this kind of file only")
    parser.add_argument("--resume-every", type=int, default=20, help="resume every n-th")
    options = parser.parse_args()
    count, began = Count(), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        place = Place.make(Path(name))
        place.snapshot()
        for number, mutation in enumerate(mutations(place)):
            if options.only in (None, mutation.kind):
                told = len(count.problems)
                trial(place, mutation, count, resume=number % options.resume_every == 0)
                print(*count.problems[told:], sep="\n", end="\n" * (told < len(count.problems)))  # noqa: T201
    print(f"{count}, {time.monotonic() - began:.0f} s")  # noqa: T201
    return int(bool(count.problems))


if __name__ == "__main__":
    sys.exit(main())
