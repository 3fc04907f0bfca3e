"""What a journal's frames say to metadata, to collections and to uploads. Pure."""

from collections.abc import Sequence

import msgpack

from engine.scheduler.journal import (
    FailedRecord,
    RunBeganRecord,
    RunDoneRecord,
    SucceededRecord,
    decode,
)
from engine.stores.manifest import outline
from engine.stores.metadata.base import Fact, RunEnd, RunRecord, TaskRecord
from engine.stores.remote.named import There


def fact_of(offset: int, payload: bytes) -> Fact | None:
    """What one frame says; None if it is nothing that metadata has.

    Raises:
        StoreError: the frame cannot be read.
    """
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


def record_of(began: RunBeganRecord) -> RunRecord:
    """What metadata would say of a run that has only begun."""
    return RunRecord(
        flow=began.flow,
        run_id=began.run_id,
        status="running",
        created_us=began.at_us,
        user=began.user,
        tags=began.tags,
        system_tags=(f"user:{began.user}", "runtime:dev"),
        origin_run_id=began.origin_run_id,
        host=began.host,
    )


def named_in(payload: bytes) -> Sequence[tuple[bytes, There]]:
    """As `journal.manifests_in`; each with what is known of where its blobs are."""
    match decode(payload):
        case RunBeganRecord(parameters=parameters, code=code, origin_run_id=origin):
            package = code.get("package")
            packages = [(package, There.LIKELY)] if package else []
            return [(parameters, There.CERTAIN if origin else There.UNKNOWN), *packages]
        case SucceededRecord(manifest=manifest, reused=reused):
            return [(manifest, There.CERTAIN if reused else There.UNKNOWN)]
        case _:
            return ()


def _task_of(record: SucceededRecord | FailedRecord, status: str, result: int | None) -> TaskRecord:
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
