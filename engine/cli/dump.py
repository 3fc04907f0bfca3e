"""`aflow dump RUN[/step[/task[/artifact]]]`: what tasks left.

Names, types, sizes and previews were written when the values were saved, and are shown without
reading a value. A value is loaded when its artifact is named, and one that is a pickle only if
--unpickle says so: loading a pickle runs what its writer put there.
"""

import json
import pickle
import pprint
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from engine.cli import times
from engine.cli.escapes import safe
from engine.cli.options import session, verb
from engine.cli.references import Place, find_place
from engine.client.reader import Reader
from engine.client.values import ArtifactNotFoundError
from engine.errors import NotFoundError, StoreError, UsageError
from engine.stores.manifest import Entry
from engine.stores.metadata.base import TaskRecord

_MAX_VALUE_SIZE = 1000
_SAFE = frozenset(("json", "bytes", "text", "numpy", "arrow"))
"""Serializers whose loading runs nothing."""


@verb(
    "dump",
    examples="""
aflow dump @latest                    what its last task left
aflow dump @latest/train              what each task of train left
aflow dump @latest/train/3/score      a value
aflow dump 01JF3/train --include score,model --json
aflow dump 01JF3/train/0 --file out.pickle --unpickle
""",
    json=True,
)
@click.argument("where", default="@latest")
@click.option("--include", metavar="NAMES", help="Only these artifacts, separated by commas.")
@click.option("--private/--no-private", help="Also artifacts whose names begin with _.")
@click.option(
    "--max-value-size",
    type=click.IntRange(min=0),
    default=_MAX_VALUE_SIZE,
    metavar="BYTES",
    help=f"Show values up to this size; larger ones by type. [default: {_MAX_VALUE_SIZE}]",
)
@click.option(
    "--file",
    "out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write {pathspec: {name: value}} as a pickle to this file.",
)
@click.option("--unpickle", is_flag=True, help="Load pickles, too: trust whoever ran the flow.")
def command(
    where: str,
    include: str | None,
    private: bool,
    max_value_size: int,
    out: Path | None,
    unpickle: bool,
) -> None:
    """Show artifacts of a run, a step, a task, or one value. [default: @latest]"""
    now = session()
    with Reader.open(now.config) as reader:
        place = find_place(reader, where, flow=now.flow_name)
        wanted = _Wanted(place.artifact, include, private, max_value_size, unpickle)
        found = _tasks(reader, place)
        if out is not None:
            _write_file(reader, found, wanted, out)
        elif now.json:
            print(json.dumps(_fields(reader, found, wanted)))
        else:
            _print(reader, found, wanted)


class _Wanted:
    """Which artifacts, and how much of each."""

    def __init__(
        self, artifact: str | None, include: str | None, private: bool, size: int, unpickle: bool
    ) -> None:
        names = [name.strip() for name in (include or "").split(",") if name.strip()]
        self.names = [artifact] if artifact else names
        self.one = artifact
        self.private = private
        self.size = size
        self.unpickle = unpickle

    def of(self, entries: dict[str, Entry], task: str) -> dict[str, Entry]:
        if self.one and self.one not in entries:
            raise ArtifactNotFoundError(self.one, task, sorted(entries))
        if self.names:
            return {name: entries[name] for name in self.names if name in entries}
        return {k: e for k, e in entries.items() if self.private or not k.startswith("_")}

    def may_load(self, entry: Entry) -> bool:
        return self.unpickle or entry.serializer in _SAFE


def _tasks(reader: Reader, place: Place) -> list[TaskRecord]:
    """The tasks that are meant, those that committed nothing left out."""
    run = place.run
    if place.task is not None and place.step is not None:
        record = reader.task(run.flow, run.run_id, place.step, place.task)
        if record is None:
            raise NotFoundError(
                f"there is no task {place.step}/{place.task} in {run.flow}/{run.run_id}"
            )
        found = [record]
    else:
        step = place.step
        if step is not None and step not in reader.steps(run.flow, run.run_id):
            steps = ", ".join(reader.steps(run.flow, run.run_id))
            raise NotFoundError(
                f"there is no step {step!r} in {run.flow}/{run.run_id}", hint=f"it has {steps}"
            )
        if step is None:
            begun = reader.steps(run.flow, run.run_id)
            step = begun[-1] if begun else None
        found = list(reader.tasks(run.flow, run.run_id, step)) if step else []
    committed = [record for record in found if record.result is not None]
    if not committed:
        raise NotFoundError(
            f"nothing that is named here has left artifacts in {run.flow}/{run.run_id}",
            hint=f"aflow status {run.run_id}",
        )
    return committed


def _pathspec(record: TaskRecord) -> str:
    return f"{record.flow}/{record.run_id}/{record.step}/{record.task_id}"


def _entries(reader: Reader, record: TaskRecord, wanted: _Wanted) -> dict[str, Entry]:
    return wanted.of(dict(reader.entries(record)), _pathspec(record))


def _print(reader: Reader, records: list[TaskRecord], wanted: _Wanted) -> None:
    if wanted.one and len(records) == 1:
        entry = _entries(reader, records[0], wanted)[wanted.one]
        if not wanted.may_load(entry):
            print("a pickle, shown as it was when saved: --unpickle loads it", file=sys.stderr)
        print(_text(reader, entry, wanted, asked=True))
        return
    for record in records:
        print(_pathspec(record))
        for name, entry in _entries(reader, record, wanted).items():
            print(f"  {name} = {_text(reader, entry, wanted, asked=bool(wanted.names))}")


def _text(reader: Reader, entry: Entry, wanted: _Wanted, *, asked: bool) -> str:
    """The value if it was asked for and may be loaded; else what is known of it without."""
    size = times.size(entry.size_bytes)
    if asked and wanted.may_load(entry) and (wanted.one or entry.size_bytes <= wanted.size):
        value = reader.value(entry)
        text = value if isinstance(value, str) and wanted.one else pprint.pformat(value)
        return "\n".join(safe(line) for line in text.splitlines())
    if entry.preview and entry.size_bytes <= wanted.size:
        return safe(entry.preview)
    return f"<{safe(entry.type)}, {size}>"


def _fields(reader: Reader, records: list[TaskRecord], wanted: _Wanted) -> dict[str, Any]:
    tasks = [
        {
            "task": _pathspec(record),
            "artifacts": {
                name: _artifact(reader, entry, wanted)
                for name, entry in _entries(reader, record, wanted).items()
            },
        }
        for record in records
    ]
    return {"schema": "aflow/dump/1", "tasks": tasks}


def _artifact(reader: Reader, entry: Entry, wanted: _Wanted) -> dict[str, Any]:  # Any: JSON
    fields = {
        "type": entry.type,
        "size_bytes": entry.size_bytes,
        "sha": entry.sha,
        "serializer": entry.serializer,
        "preview": entry.preview,
    }
    if entry.serializer == "json" and (wanted.one or entry.size_bytes <= wanted.size):
        fields["value"] = reader.value(entry)
    return fields


def _write_file(reader: Reader, records: list[TaskRecord], wanted: _Wanted, out: Path) -> None:
    values = {
        _pathspec(record): dict(_loaded(reader, _entries(reader, record, wanted), wanted))
        for record in records
    }
    try:
        out.write_bytes(pickle.dumps(values))
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror}") from error
    print(f"{out}: artifacts of {len(values):,} tasks", file=sys.stderr)


def _loaded(
    reader: Reader, entries: dict[str, Entry], wanted: _Wanted
) -> Iterator[tuple[str, object]]:
    for name, entry in entries.items():
        if not wanted.may_load(entry):
            raise UsageError(
                f"artifact {name!r} ({entry.type}) is a pickle",
                hint="--unpickle loads it, if you trust whoever ran the flow; or --include others",
            )
        yield name, reader.value(entry)
