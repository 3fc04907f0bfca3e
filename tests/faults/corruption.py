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
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from engine.client.audit import Audit
from engine.client.reader import Reader
from engine.errors import EngineError
from engine.scheduler.facts import fact_of
from engine.scheduler.journal import SucceededRecord, decode
from engine.stores.artifacts import load_item
from engine.stores.journals import JournalReader
from engine.stores.layout import open_layout
from engine.stores.manifest import Manifest
from engine.stores.metadata.base import TaskRecord
from engine.stores.metadata.rebuild import reindex
from tests.faults.crashes import COMMAND, ROOT
from tests.faults.mutations import Mutation, mutations_of

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
            env={**kept, "AFLOW_PACKAGE_SUFFIXES": "none", "PYTHONPATH": str(ROOT)}
            | {"AFLOW_DATASTORE": str(self.store)},
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

    def mutations(self) -> Iterator[Mutation]:
        """All that can happen to what is there."""
        return mutations_of(self.store, self._needed())

    def _needed(self) -> list[str]:
        """The blobs that manifests name: taken away, they are missed."""
        needed = []
        for path in sorted((self.store / "blobs").glob("??/*")):
            aside = path.with_suffix(".aside")
            path.rename(aside)
            name = str(path.relative_to(self.store))
            if name in self.audit(read_data=False):
                needed.append(name)
            aside.rename(path)
        return needed

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=KINDS, help="this kind of file only")
    parser.add_argument("--resume-every", type=int, default=20, help="resume every n-th")
    options = parser.parse_args()
    count, began = Count(), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        place = Place.make(Path(name))
        place.snapshot()
        for number, mutation in enumerate(place.mutations()):
            if options.only in (None, mutation.kind):
                told = len(count.problems)
                trial(place, mutation, count, resume=number % options.resume_every == 0)
                print(*count.problems[told:], sep="\n", end="\n" * (told < len(count.problems)))  # noqa: T201
    print(f"{count}, {time.monotonic() - began:.0f} s")  # noqa: T201
    return int(bool(count.problems))


if __name__ == "__main__":
    sys.exit(main())
