"""What a step needs of AWS Batch: its @batch and @resources, the settings, and the queue's kind."""

import math
import sys
from contextlib import suppress

from msgspec.structs import replace

from engine.config import Config
from engine.errors import ConfigError, LimitExceededError
from engine.executors.batch_errors import BatchSettingError, JobUnplaceableError
from engine.executors.batch_requests import AUTO_PACK, Needs, definition, fargate_size
from engine.executors.batch_waiting import misfit, unusable
from engine.flow.decorators.batch import Batch
from engine.flow.decorators.resources import Resources
from engine.flow.decorators.specs import Decorators
from engine.runtime.batch_queues import QueueScout

DEFAULT_CPU, DEFAULT_MEMORY_MIB = 1.0, 4096


def batch_steps(decorators: Decorators) -> dict[str, tuple[Batch, Resources | None]]:
    """The steps that run in Batch, by name."""
    found = {}
    for step, chosen in decorators.items():
        batch = next((d for d in chosen if isinstance(d, Batch)), None)
        resources = next((d for d in chosen if isinstance(d, Resources)), None)
        if batch is not None:
            found[step] = batch, resources
    return found


def needs_of(batch: Batch, resources: Resources | None, config: Config) -> Needs:
    """Join what is asked for; of what @batch and @resources both ask, the larger.

    `queue` is "" where neither the step nor the settings name one.
    """
    more = resources or Resources()
    is_asked = resources is not None
    tmpfs = batch.tmpfs_size or (_mib(batch.memory) or DEFAULT_MEMORY_MIB) // 2
    return Needs(
        queue=batch.queue or config.batch_queue or "",
        image=batch.image or config.batch_image or default_image(),
        cpu=max(batch.cpu or 0, more.cpu if is_asked else 0) or DEFAULT_CPU,
        memory_mib=max(_mib(batch.memory), _mib(more.memory) if is_asked else 0)
        or DEFAULT_MEMORY_MIB,
        gpu=max(batch.gpu or 0, more.gpu or 0),
        job_role=batch.iam_role or config.batch_job_role,
        execution_role=batch.execution_role or config.batch_execution_role,
        shared_memory_mib=max(_mib(batch.shared_memory), _mib(more.shared_memory)) or None,
        max_swap_mib=_mib(batch.max_swap) or None,
        swappiness=batch.swappiness,
        tmpfs_mib=_mib(tmpfs) if batch.use_tmpfs or batch.tmpfs_size else None,
        tmpfs_path=batch.tmpfs_path,
        inferentia=batch.inferentia or batch.trainium or 0,
        efa=batch.efa or 0,
        ephemeral_gib=batch.ephemeral_storage,
        host_volumes=tuple(batch.host_volumes or ()),
        efs_volumes=tuple(batch.efs_volumes or ()),
        log_driver=batch.log_driver,
        log_options=dict(batch.log_options or {}),  # type: ignore[arg-type]  # a mapping by then
        privileged=batch.privileged,
        tags=dict(batch.aws_batch_tags or {}),  # type: ignore[arg-type]  # as above
        variables=_temporary(batch),
        pack=AUTO_PACK if batch.pack == "auto" else int(batch.pack),
    )


def default_image() -> str:
    """The image of Python's own that has this minor version."""
    return f"python:{sys.version_info.major}.{sys.version_info.minor}"


def _mib(size: int | str | None) -> int:
    return int(size or 0)


def _temporary(batch: Batch) -> dict[str, str]:
    uses_tmpfs = batch.use_tmpfs or batch.tmpfs_size
    return {"TMPDIR": batch.tmpfs_path} if uses_tmpfs and batch.tmpfs_tempdir else {}


def more_memory(needs: Needs, factor: float, times: int) -> Needs:
    """What the attempt after `times` that ran out of memory needs.

    Fargate gives the next size that it has; what is larger than all of its, it is asked for as it
    is, and refuses.
    """
    if needs.on_demand is not None:
        on_demand = more_memory(needs.on_demand, factor, times)
        needs = replace(needs, on_demand=on_demand)
    wanted = math.ceil(needs.memory_mib * factor**times)
    if needs.is_fargate:
        with suppress(LimitExceededError):
            cpu, wanted = fargate_size(needs.cpu, wanted)
            return replace(needs, cpu=cpu, memory_mib=wanted)
    return replace(needs, memory_mib=wanted)


def refuse_gang(step: str, needs: Needs) -> None:
    """Raise if the tasks of a @parallel step cannot run together where `needs` says.

    Raises:
        ConfigError: they are to share containers, or the queue's machines run no multi-node jobs.

    Source: User Guide, "Multi-node parallel jobs": neither Fargate nor Spot (read 2026-11-24).
    """
    if needs.pack != 1:
        asked = '"auto"' if needs.pack == AUTO_PACK else needs.pack
        raise ConfigError(
            f"step {step!r} has @parallel beside @batch(pack={asked}), but its tasks run at the "
            "same time, and those of a container one after the other",
            hint=f"give {step!r} a @batch without pack",
        )
    if needs.platform != "EC2":
        raise ConfigError(
            f"step {step!r} has @parallel, and queue {needs.queue!r} is of {needs.platform}: AWS "
            "Batch runs multi-node jobs on EC2 machines on demand alone",
            hint="use such a queue: @batch(queue=...)",
        )


class Queues:
    """The queues that a run uses.

    Args:
        scout: looks at them.
    """

    def __init__(self, scout: QueueScout) -> None:
        self._scout = scout

    async def fit(self, needs: Needs, command: list[str], what: str = "a step") -> Needs:
        """Complete what a step needs by its queue's kind.

        Raises:
            BatchSettingError: there is no such queue, or it takes no jobs.
            JobUnplaceableError, LimitExceededError: no machine of the queue is so large.
            ConfigError: the queue's kind has not what is asked for.
        """
        queue = await self._scout.look(needs.queue or await self._scout.only_queue())
        if found := unusable(queue):
            raise BatchSettingError(found.message, hint=found.hint)
        needs = replace(needs, queue=queue.name, platform=queue.platform)
        if needs.is_fargate:
            needs = _for_fargate(needs)
        if found := misfit(needs, queue):
            raise JobUnplaceableError(f"{what} cannot run: {found.message}", hint=found.hint)
        definition(needs, command)  # what Batch would refuse, is refused here
        return needs


def _for_fargate(needs: Needs) -> Needs:
    refused = {
        "gpu": needs.gpu,
        "inferentia": needs.inferentia,
        "efa": needs.efa,
        "host_volumes": needs.host_volumes,
        "privileged": needs.privileged,
        "use_tmpfs": needs.tmpfs_mib,
        "max_swap": needs.max_swap_mib,
        "shared_memory": needs.shared_memory_mib,
    }
    asked = [name for name, value in refused.items() if value]
    if asked:
        raise ConfigError(
            f"queue {needs.queue!r} is of Fargate, which has no {', '.join(asked)}",
            hint="use a queue of EC2 machines, or leave that out of @batch",
        )
    if needs.execution_role is None:
        raise ConfigError(
            f"queue {needs.queue!r} is of Fargate, which needs an execution role",
            hint="@batch(execution_role=...), or the setting batch_execution_role",
        )
    cpu, memory_mib = fargate_size(needs.cpu, needs.memory_mib)
    return replace(needs, cpu=cpu, memory_mib=memory_mib)
