"""What a journal says to those who do not schedule: to metadata, to collections, to uploads.

The stores keep journals and do not know what a payload means; the scheduler knows and does not know
metadata. Here the two meet.
"""

import msgpack

from engine.scheduler.journal import (
    FailedRecord,
    RunBeganRecord,
    RunDoneRecord,
    SucceededRecord,
    decode,
)
from engine.stores.manifest import outline
from engine.stores.metadata.base import RunRecord, TaskRecord
from engine.stores.metadata.rebuild import Fact, RunEnd


def record_of(began: RunBeganRecord, *, pid: int | None = None) -> RunRecord:
    """What metadata says of a run that has only begun. `pid` is of the process that drives it."""
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
        pid=pid,
    )


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


def manifest_in(payload: bytes) -> bytes | None:
    """The packed manifest in a journal's frame, if there is one: what it names is needed."""
    match decode(payload):
        case RunBeganRecord(parameters=parameters):
            return parameters
        case SucceededRecord(manifest=manifest):
            return manifest
        case _:
            return None


def named_in(payload: bytes) -> tuple[bytes, bool] | None:
    """As `manifest_in`, and whether another run that was committed names the same already."""
    match decode(payload):
        case RunBeganRecord(parameters=parameters, origin_run_id=origin):
            return parameters, origin is not None
        case SucceededRecord(manifest=manifest, reused=reused):
            return manifest, reused
        case _:
            return None


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
