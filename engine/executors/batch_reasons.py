"""Why a Batch job ended: what Batch and the container say, as a named failure with a hint. Pure.

The table is read from above; the first row that fits says what it was. Sources: AWS Batch User
Guide, "Troubleshooting" and "Job states"; Amazon ECS Developer Guide, "Stopped tasks error
messages" (read 2026-11-24).
"""

import re
import signal
from collections.abc import Callable

from msgspec import Struct

from engine.errors import Failure
from engine.executors.base import (
    KERNEL_HAD_NO_MEMORY,
    NODE_ENDED,
    OUT_OF_MEMORY,
    Exit,
    ExitKind,
)
from engine.executors.batch_states import SUCCEEDED, Seen

HOST_LOST = "host-lost"
IMAGE = "image"
EXIT_PYTHON, EXIT_FETCH, EXIT_DENIED = 90, 91, 92
"""Exit codes of engine.container.bootstrap."""

_KILLED, _TERMINATED = 128 + signal.SIGKILL, 128 + signal.SIGTERM


class Reason(Struct, frozen=True):
    """A row: `fits` looks at what Batch says; the rest is what we make of it."""

    code: str
    fits: Callable[[Seen], bool]
    message: str
    hint: str
    retryable: bool = True
    kind: ExitKind = ExitKind.LOST


def _says(pattern: str) -> Callable[[Seen], bool]:
    found = re.compile(pattern, re.IGNORECASE)
    return lambda seen: bool(
        found.search(seen.status_reason) or found.search(seen.container_reason)
    )


def _exits(*codes: int) -> Callable[[Seen], bool]:
    return lambda seen: seen.exit_code in codes


_MORE = "ask for more: @resources(memory=...), or @retry(oom_memory=2) for an attempt that needs it"
_ROLE = "aflow doctor batch tells which statement the role lacks"

_HOST = Reason(
    HOST_LOST,
    _says(r"^Host EC2 .*(terminated|interrupt)|^Host EC2"),
    "the machine under the job was taken away",
    "a spot machine can be; on-demand machines are not: use a queue of those",
)
REASONS: tuple[Reason, ...] = (
    _HOST,
    Reason(
        OUT_OF_MEMORY,
        _says(r"OutOfMemory"),
        "the container ran out of memory",
        _MORE,
    ),
    Reason(
        "task-timeout",
        _says(r"duration exceeded timeout"),
        "the job ran longer than Batch lets it",
        "raise @timeout",
        kind=ExitKind.TIMED_OUT,
    ),
    Reason(
        "image-denied",
        _says(r"CannotPull\w*Error.*(denied|unauthorized|no basic auth|403)"),
        "the image may not be pulled",
        "the execution role (or the machine's) needs ecr:GetAuthorizationToken, "
        "ecr:BatchGetImage and ecr:GetDownloadUrlForLayer",
        retryable=False,
    ),
    Reason(
        IMAGE,
        _says(r"CannotPull\w*Error.*(not found|manifest unknown|does not exist|invalid reference)"),
        "there is no such image",
        "mend the name and tag: @batch(image=...), or the setting batch_image",
        retryable=False,
    ),
    Reason(
        "image-pull",
        _says(r"CannotPull\w*Error|pull image"),
        "the image could not be pulled",
        "the machines need a way to the registry: a NAT gateway, or endpoints in the VPC",
    ),
    Reason(
        "container-start",
        _says(r"CannotStartContainerError|CannotCreateContainerError|DockerTimeoutError"),
        "the container could not be started",
        "the image needs a `python3` of the driver's version in its PATH",
    ),
    Reason(
        "container-inspect",
        _says(r"CannotInspectContainerError"),
        "the machine lost sight of the container",
        "often its disk or its memory is full: give @batch a larger one",
    ),
    Reason(
        "job-secrets",
        _says(r"ResourceInitializationError"),
        "the container's secrets, logs or volumes could not be set up",
        "the execution role may not read them, or the subnet has no way to AWS",
    ),
    Reason(
        "job-role",
        _says(r"role .*(not authorized|cannot be assumed|AssumeRole)|unable to assume"),
        "the job's role cannot be taken",
        "its trust policy must name ecs-tasks.amazonaws.com: @batch(iam_role=...)",
        retryable=False,
    ),
    Reason(
        "job-unplaceable",
        _says(r"MISCONFIGURATION|RESOURCE_REQUIREMENT|insufficient .* capacity limits"),
        "no machine of the queue can take the job",
        "ask for less, or use a queue with larger machines: aflow doctor batch --queue QUEUE",
        retryable=False,
    ),
    Reason(
        "dependency-failed",
        _says(r"Dependent Job failed"),
        "a job that this one waited for failed",
        "",
    ),
    Reason(
        "image-python",
        _exits(EXIT_PYTHON),
        "the image has another Python than the driver",
        "the minor version and the platform of both must be equal: the job's log names them",
        retryable=False,
    ),
    Reason(
        "runtime-fetch",
        _exits(EXIT_FETCH),
        "the container could not fetch aflow from the datastore",
        "the subnet needs a way to S3: a gateway endpoint, or NAT; the job's log says more",
    ),
    Reason(
        "runtime-denied",
        _exits(EXIT_DENIED),
        "the container may not read the datastore",
        "give the job a role that may: @batch(iam_role=...), or the setting batch_job_role",
        retryable=False,
    ),
    Reason(
        OUT_OF_MEMORY,
        _exits(_KILLED),
        "the container was killed, most likely for want of memory",
        _MORE,
    ),
    Reason(
        "image-python",
        _exits(127),
        "the image has no `python3`",
        "use an image with Python, such as python:3.11-slim: @batch(image=...)",
        retryable=False,
    ),
)


def exit_of(seen: Seen, *, cancelled: str | None = None, in_gang: bool = False) -> Exit:
    """How a job ended of which its container has left no last word.

    Args:
        seen: what Batch says of it; it has ended.
        cancelled: why we ended it, if we did.
        in_gang: whether it is a node of a multi-node job. Such a job is ended when one node has
            failed, and another may have died of itself before.
    """
    told = seen.container_reason or seen.status_reason
    if cancelled is not None and not (in_gang and _is_dead_of_itself(seen)):
        return Exit(ExitKind.CANCELLED, detail=cancelled)
    if seen.state == SUCCEEDED:
        message = "Batch says that the job succeeded, and it left no result"
        return Exit(ExitKind.LOST, detail=message, failure=_failure("task-lost", message, "", True))
    for reason in REASONS:
        if reason.fits(seen):
            message = f"{reason.message}: {told}" if told else reason.message
            failure = _failure(reason.code, message, reason.hint, reason.retryable)
            return Exit(reason.kind, seen.exit_code or 0, told, failure)
    if in_gang and seen.exit_code == _TERMINATED:
        message = "Batch has ended the node: its job's main node had ended, or the job was ended"
        failure = _failure(NODE_ENDED, message, "", True)
        return Exit(ExitKind.SIGNAL, signal.SIGTERM, told, failure)
    if seen.exit_code is not None:
        if seen.exit_code > 128:
            return Exit(ExitKind.SIGNAL, seen.exit_code - 128, told)
        return Exit(ExitKind.CODE, seen.exit_code, told)
    message = f"the job failed: {told or 'Batch does not say why'}"
    return Exit(ExitKind.LOST, 0, told, _failure("task-lost", message, "", True))


def _is_dead_of_itself(seen: Seen) -> bool:
    """Whether a node has ended otherwise than by being told to."""
    return seen.exit_code not in (None, _TERMINATED) or _HOST.fits(seen)


def has_lost_host(exit: Exit) -> bool:
    """Whether a job ended because its machine was taken away, more often than Batch tries."""
    return exit.failure is not None and exit.failure.code == HOST_LOST


def told_by_container(exit: Exit) -> Exit:
    """What a container says of how its task's process ended, with what that means there."""
    if exit.kind is ExitKind.SIGNAL and exit.detail.startswith(KERNEL_HAD_NO_MEMORY):
        message = f"the task ran out of the container's memory: {exit.detail}"
        failure = _failure(OUT_OF_MEMORY, message, _MORE, True)
        return Exit(exit.kind, exit.code, exit.detail, failure)
    return exit


def gone() -> Exit:
    """How a job ended that Batch no longer knows, and that left nothing."""
    message = "Batch no longer knows the job, and it left no result"
    hint = "ended jobs are forgotten after about a day; the task is run again with @retry"
    return Exit(ExitKind.LOST, detail=message, failure=_failure("task-lost", message, hint, True))


def _failure(code: str, message: str, hint: str, retryable: bool) -> Failure:
    return Failure(code=code, message=message, hint=hint, retryable=retryable)
