"""Jobs as Batch shows them: the answers of DescribeJobs and ListJobs. Pure.

Source: AWS Batch API Reference, JobDetail, JobSummary and ListJobs (read 2026-11).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.testing.batch.jobs import Attempt, Job, Outcome
from engine.testing.batch.limits import LIST_MAX, ApiError
from engine.testing.batch.retries import matches

_ARN = "arn:aws:batch:us-east-1:123456789012"
Shown = dict[str, Any]  # Any: JSON


def job_arn(job: Job) -> str:
    return f"{job.work.queue_arn.rpartition(':job-queue/')[0] or _ARN}:job/{job.id}"


def job_detail(job: Job, node: int | None = None) -> Shown:
    """The job as DescribeJobs has it; `node` picks one of a multi-node job's."""
    work = job.work
    shown: Shown = {
        "jobArn": job_arn(job),
        "jobId": job.id if node is None else f"{job.id}#{node}",
        "jobName": job.name,
        "jobQueue": work.queue_arn,
        "jobDefinition": work.definition_arn,
        "status": str(job.status),
        "createdAt": _ms(job.created_at),
        "attempts": [_attempt(each) for each in job.over],
        "dependsOn": [dict(each) for each in work.depends_on],
        "isCancelled": job.is_cancelled,
        "isTerminated": job.is_terminated,
        **work.shown,
    }
    _put(shown, statusReason=job.reason)
    _put(shown, startedAt=_ms(job.started_at), stoppedAt=_ms(job.stopped_at))
    if work.is_multinode and node is None:
        shown["nodeProperties"] = {
            "numNodes": len(work.nodes),
            "mainNode": work.main_node,
            "nodeRangeProperties": [
                {"targetNodes": f"{i}:{i}", "container": dict(each.properties)}
                for i, each in enumerate(work.nodes)
            ],
        }
    else:
        shown["container"] = _container(job, work.main_node if node is None else node)
    if node is not None:
        shown["nodeDetails"] = {"nodeIndex": node, "isMainNode": node == work.main_node}
    if job.is_array:
        shown["arrayProperties"] = {
            "size": len(job.children),
            "statusSummary": {str(k): n for k, n in (job.counts or {}).items()},
        }
    elif job.index is not None:
        shown["arrayProperties"] = {"index": job.index}
    return shown


def job_summary(job: Job, node: int | None = None) -> Shown:
    """The job as ListJobs has it."""
    shown: Shown = {
        "jobArn": job_arn(job),
        "jobId": job.id if node is None else f"{job.id}#{node}",
        "jobName": job.name,
        "createdAt": _ms(job.created_at),
        "status": str(job.status),
        "jobDefinition": job.work.definition_arn,
    }
    _put(shown, statusReason=job.reason)
    _put(shown, startedAt=_ms(job.started_at), stoppedAt=_ms(job.stopped_at))
    if job.outcome:
        shown["container"] = _ending(job.outcome)
    if job.is_array:
        shown["arrayProperties"] = {"size": len(job.children)}
    elif job.index is not None:
        shown["arrayProperties"] = {"index": job.index}
    if job.work.is_multinode:
        if node is None:
            shown["nodeProperties"] = {"numNodes": len(job.work.nodes)}
        else:
            main = node == job.work.main_node
            shown["nodeProperties"] = {"nodeIndex": node, "isMainNode": main}
    return shown


def page(found: Sequence[Any], body: Mapping[str, Any]) -> tuple[Sequence[Any], str | None]:
    """The part of a list that ListJobs is asked for, and the token of the next.

    Raises:
        ApiError: the token is none of ours.
    """
    token = body.get("nextToken") or "0"
    if not str(token).isdecimal():
        raise ApiError("Invalid nextToken.")
    begin = int(token)
    size = max(1, min(LIST_MAX, int(body.get("maxResults") or LIST_MAX)))
    end = begin + size
    return found[begin:end], str(end) if end < len(found) else None


def filtered(jobs: Iterable[Job], body: Mapping[str, Any]) -> list[Job]:
    """The jobs that ListJobs is asked for: filters, else one status, else those that run.

    Raises:
        ApiError: there is no such filter.
    """
    filters = body.get("filters") or ()
    if not filters:
        status = body.get("jobStatus") or "RUNNING"
        return [job for job in jobs if job.status == status]
    return [job for job in jobs if all(_fits(job, each) for each in filters)]


def _fits(job: Job, wanted: Mapping[str, Any]) -> bool:
    name, values = wanted.get("name"), wanted.get("values") or [""]
    if name == "JOB_NAME":
        return any(matches(value, job.name) for value in values)
    if name == "JOB_DEFINITION":
        known = (job.work.definition_arn, job.work.definition_name)
        return any(matches(value, each) for value in values for each in known)
    if name == "BEFORE_CREATED_AT":
        return job.created_at * 1000 < float(values[0])
    if name == "AFTER_CREATED_AT":
        return job.created_at * 1000 > float(values[0])
    raise ApiError(f"Unknown filter {name}.")


def _container(job: Job, node: int) -> Shown:
    shown: Shown = dict(job.work.nodes[node].properties)
    stream = job.log_streams[node] if job.log_streams else ""
    outcome = job.ended.get(node) or (job.outcome if job.status.is_end else None)
    _put(shown, logStreamName=stream)
    if job.attempt:
        shown["taskArn"] = _task_arn(stream)
        shown["containerInstanceArn"] = job.place
    return shown | (_ending(outcome) if outcome else {})


def _attempt(attempt: Attempt) -> Shown:
    stream = attempt.log_stream
    container: Shown = {"taskArn": _task_arn(stream), **_ending(attempt.outcome)}
    _put(container, logStreamName=stream)
    shown: Shown = {"container": container, "statusReason": attempt.status_reason}
    _put(shown, startedAt=_ms(attempt.started_at), stoppedAt=_ms(attempt.stopped_at))
    return shown


def _ending(outcome: Outcome) -> Shown:
    shown: Shown = {}
    _put(shown, exitCode=outcome.exit_code, reason=outcome.reason)
    return shown


def _task_arn(stream: str) -> str:
    return f"arn:aws:ecs:us-east-1:123456789012:task/{stream.rpartition('/')[2]}"


def _put(shown: Shown, **fields: object) -> None:
    shown.update((k, v) for k, v in fields.items() if v is not None and v != "")


def _ms(at: float | None) -> int | None:
    return None if at is None else int(at * 1000)
