"""`aflow fsck`: is all that is stored still what was written?

Every manifest of every journal is read, and every blob that one of them names is looked at. Nothing
is unpickled. `--reindex` makes the list of runs again from the journals, which are the truth.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import click
from msgspec.structs import asdict

from engine.cli.options import session, verb
from engine.client.reader import record_of
from engine.config import Config
from engine.errors import EXIT_INFRASTRUCTURE, EngineError, StoreError
from engine.scheduler.journal import (
    FailedRecord,
    RunBeganRecord,
    RunDoneRecord,
    SucceededRecord,
    decode,
    manifests_in,
)
from engine.stores.fsck import Damage, check
from engine.stores.journals import JournalReader, never_began
from engine.stores.layout import Layout, open_layout
from engine.stores.manifest import Manifest, outline
from engine.stores.metadata.base import TaskRecord
from engine.stores.metadata.rebuild import Fact, RunEnd


@verb(
    "fsck",
    examples="aflow fsck\naflow fsck --read-data\naflow fsck --reindex",
    json=True,
)
@click.option("--read-data", is_flag=True, help="Read and hash every blob, however long it takes.")
@click.option("--reindex", is_flag=True, help="Make the list of runs again from the journals.")
def command(read_data: bool, reindex: bool) -> int:
    """Check what is stored: journals, manifests, blobs. Ends with 6 if something is wrong."""
    now = session()
    layout = open_layout(Path(now.config.datastore))
    problems: dict[str, str] = {}
    written = _reindex(layout, now.config, problems) if reindex else 0
    manifests = _manifests(layout, now.config, problems)
    damages = list(check(manifests, layout.blob_directory(), read_data=read_data))
    runs = sum(len(layout.run_ids(flow)) for flow in layout.flows())
    if now.json:
        fields = {"runs": runs, "reindexed": written, "unreadable": problems}
        found = [asdict(damage) for damage in damages]
        print(json.dumps({"schema": "aflow/fsck/1", **fields, "damages": found}))
    else:
        for pathspec, problem in problems.items():
            print(f"unreadable  {pathspec}: {problem}")
        for damage in damages:
            print(f"{damage.kind:10}  {damage.used_by}: {_blob(damage)}")
        if reindex:
            print(f"{written:,} runs listed again")
        wrong = len(problems) + len(damages)
        print(f"{runs:,} runs checked: {f'{wrong:,} things are wrong' if wrong else 'all is well'}")
    return EXIT_INFRASTRUCTURE if problems or damages else 0


def _blob(damage: Damage) -> str:
    what = f"blob {damage.digest[:12]}" if damage.digest else "a value in its manifest"
    return f"{what} {damage.detail}".rstrip()


def _manifests(layout: Layout, config: Config, problems: dict[str, str]) -> Iterator[Manifest]:
    """Every manifest of every run; a journal that cannot be read on is told and left."""
    for flow in layout.flows():
        for run_id in layout.run_ids(flow):
            try:
                if not _is_nothing(layout, config, flow, run_id):
                    yield from _manifests_of(layout, flow, run_id)
            except EngineError as error:
                problems.setdefault(f"{flow}/{run_id}", error.message)


def _is_nothing(layout: Layout, config: Config, flow: str, run_id: str) -> bool:
    """Whether a run was killed before it began, and so has nothing that could be damaged.

    Raises:
        StoreError: it did begin, for it is listed or has printed lines, but its journal is empty.
    """
    journal = layout.journal(flow, run_id)
    if journal.exists():
        with JournalReader(str(journal)) as reader:
            if next(reader.scan(), None) is not None:
                return False
    if never_began(journal.parent) and not _is_listed(layout, config, flow, run_id):
        return True
    raise StoreError(
        f"{journal} {'does not say that the run began' if journal.exists() else 'is gone'}"
    )


def _is_listed(layout: Layout, config: Config, flow: str, run_id: str) -> bool:
    from engine.stores.metadata.local import LocalMetadataSync

    path = _metadata(layout, config)
    if not path.exists():
        return False
    with LocalMetadataSync(path) as metadata:
        return metadata.run(flow, run_id) is not None


def _metadata(layout: Layout, config: Config) -> Path:
    return Path(config.metadata) if config.metadata else layout.metadata


def _manifests_of(layout: Layout, flow: str, run_id: str) -> Iterator[Manifest]:
    with JournalReader(str(layout.journal(flow, run_id))) as journal:
        for _, payload in journal.scan():
            for packed in manifests_in(payload):
                yield Manifest.unpack(packed)


def _reindex(layout: Layout, config: Config, problems: dict[str, str]) -> int:
    import asyncio

    from engine.stores.metadata.local import LocalMetadata
    from engine.stores.metadata.rebuild import rebuild

    path = _metadata(layout, config)

    async def work() -> tuple[int, dict[str, str]]:
        metadata = LocalMetadata(path)
        try:
            return await rebuild(layout, metadata, fact_of)
        finally:
            await metadata.aclose()

    written, found = asyncio.run(work())
    problems.update(found)
    return written


def fact_of(offset: int, payload: bytes) -> Fact | None:
    """What a journal's frame says to metadata."""
    match decode(payload):
        case RunBeganRecord() as began:
            return record_of(began)
        case SucceededRecord() as done:
            return _task_of(done, "succeeded", offset)
        case FailedRecord() as failed:
            return _task_of(failed, "failed", None)
        case RunDoneRecord(at_us=at_us, status=status, reason=reason):
            return RunEnd(status, at_us, reason)
        case _:
            return None


def _task_of(record: SucceededRecord | FailedRecord, status: str, result: int | None) -> TaskRecord:
    import msgpack

    reused = caught = False
    failure: bytes | None = None
    if isinstance(record, SucceededRecord):
        reused, caught = record.reused, outline(record.manifest).caught
    else:
        failure = bytes(msgpack.packb(record.failure.to_dict()))
    return TaskRecord(
        flow="",
        run_id="",
        step=record.task.step,
        task_id=record.task.task_id,
        ordinal=0,
        attempt=record.attempt,
        status=status,
        started_us=record.started_us,
        ended_us=record.ended_us,
        result=result,
        reused=reused,
        caught=caught,
        failure=failure,
    )
