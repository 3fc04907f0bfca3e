"""Why a job gets no machine: what it needs, beside what its queue has. Pure.

A job that no machine can take is not refused by Batch: it waits in RUNNABLE for ever. So what it
needs is held against the queue's machines before it is sent, and again when it has waited long.

Source: AWS Batch User Guide, "Jobs stuck in a RUNNABLE status", "Job queue template" and "Compute
environment template" (read 2026-11-24).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from engine.executors.batch_requests import Needs

DOCTOR = "`aflow doctor batch --queue {queue}` looks at the queue"
_PLATFORMS = ("EC2", "SPOT", "FARGATE", "FARGATE_SPOT")
_MIB = 1024


class Machine(Struct, frozen=True):
    """An instance type."""

    name: str
    cpu: float
    memory_mib: int
    gpu: int = 0


class Environment(Struct, frozen=True):
    """A compute environment. `machines` is None where its instance types are not known."""

    name: str
    platform: str = "EC2"
    state: str = "ENABLED"
    status: str = "VALID"
    reason: str = ""
    max_cpu: float | None = None
    machines: Sequence[Machine] | None = None

    @property
    def is_usable(self) -> bool:
        return (self.state, self.status) == ("ENABLED", "VALID")

    @property
    def told(self) -> str:
        """What is wrong with one that is not usable."""
        why = f": {self.reason}" if self.reason and self.status != "VALID" else ""
        return f"{self.name} is {self.state} and {self.status}{why}"


class Queue(Struct, frozen=True):
    """A job queue and its compute environments, in its order."""

    name: str
    state: str = "ENABLED"
    status: str = "VALID"
    reason: str = ""
    environments: Sequence[Environment] = ()

    @property
    def is_usable(self) -> bool:
        return (self.state, self.status) == ("ENABLED", "VALID")

    @property
    def platform(self) -> str:
        """What its machines are."""
        usable = [e for e in self.environments if e.is_usable] or self.environments
        return usable[0].platform if usable else _PLATFORMS[0]


class Why(Struct, frozen=True):
    """`message` is a clause that "the job waits: " may stand before."""

    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


# -- what Batch and EC2 say -----------------------------------------------------------------------

Wire = Mapping[str, Any]  # Any: JSON


def environment_names(queue: Wire) -> list[str]:
    """The compute environments of a queue as DescribeJobQueues has it, the first to use first."""
    order = sorted(queue.get("computeEnvironmentOrder") or (), key=lambda e: int(e["order"]))
    return [str(each["computeEnvironment"]) for each in order]


def machine_patterns(environment: Wire) -> list[str]:
    """Which instance types an environment may start, as DescribeInstanceTypes takes patterns.

    "optimal" is left out: its families differ by region and year. So is what Fargate has not.
    """
    resources = environment.get("computeResources") or {}
    if str(resources.get("type", "")).startswith("FARGATE"):
        return []
    words = [str(word) for word in resources.get("instanceTypes") or ()]
    if "optimal" in words:
        return []
    return [word if "." in word else f"{word}.*" for word in words]


def read_environment(wire: Wire, machines: Sequence[Machine] | None) -> Environment:
    """An environment as DescribeComputeEnvironments has it."""
    resources = wire.get("computeResources") or {}
    platform = str(resources.get("type") or _PLATFORMS[0])
    most = resources.get("maxvCpus")
    return Environment(
        name=str(wire.get("computeEnvironmentName", "")),
        platform=platform if platform in _PLATFORMS else _PLATFORMS[0],
        state=str(wire.get("state") or ""),
        status=str(wire.get("status") or ""),
        reason=str(wire.get("statusReason") or ""),
        max_cpu=None if most is None else float(most),
        machines=machines,
    )


def read_queue(wire: Wire, environments: Sequence[Environment]) -> Queue:
    """A queue as DescribeJobQueues has it."""
    return Queue(
        name=str(wire.get("jobQueueName", "")),
        state=str(wire.get("state") or ""),
        status=str(wire.get("status") or ""),
        reason=str(wire.get("statusReason") or ""),
        environments=environments,
    )


# -- what follows ---------------------------------------------------------------------------------


def unusable(queue: Queue) -> Why | None:
    """Why no job of a queue can be started, whatever it needs."""
    if not queue.is_usable:
        why = f": {queue.reason}" if queue.reason and queue.status != "VALID" else ""
        what = f"job queue {queue.name!r} takes no jobs: it is {queue.state} and {queue.status}"
        return Why(f"{what}{why}", "enable it in the AWS console, or use another one")
    if not any(e.is_usable for e in queue.environments):
        told = "; ".join(e.told for e in queue.environments) or "it has none"
        return Why(
            f"job queue {queue.name!r} has no compute environment that is enabled and valid: "
            f"{told}",
            "its jobs would wait for ever: mend one in the AWS console",
        )
    return None


def misfit(needs: Needs, queue: Queue) -> Why | None:
    """Why no machine of a usable queue can ever take a job; None if one may."""
    usable = [e for e in queue.environments if e.is_usable]
    if not usable or any(_takes(e, needs) for e in usable):
        return None
    wide = [e for e in usable if e.max_cpu is None or e.max_cpu >= needs.cpu]
    if not wide:
        most = max(e.max_cpu or 0 for e in usable)
        return Why(
            f"it needs {needs.cpu:g} vCPUs, and queue {queue.name!r} may have {most:g} in all",
            "ask for fewer, or raise maxvCpus of the compute environment",
        )
    known = [m for e in wide for m in e.machines or ()]
    for need, have, shown in _DEMANDS:
        if all(have(machine) < need(needs) for machine in known):
            best = max(known, key=have, default=None)
            offer = f"{shown(have(best))} ({best.name})" if best else "none"
            return Why(
                f"it needs {shown(need(needs))}, and the largest machine of queue {queue.name!r} "
                f"has {offer}",
                "ask for less, or use a queue with larger machines",
            )
    return Why(
        f"no machine of queue {queue.name!r} has all at once: {_all_of(needs)}",
        "ask for less of one, or use a queue with larger machines",
    )


def why_waiting(needs: Needs, queue: Queue, told: str = "") -> Why:
    """Why a job has been waiting in RUNNABLE.

    Args:
        needs: what it asks for.
        queue: its queue, as it is now.
        told: what Batch itself says of the job (its status reason), if anything.
    """
    if found := unusable(queue) or misfit(needs, queue):
        return found
    hint = DOCTOR.format(queue=queue.name)
    if told:
        return Why(told, hint)
    rooms = [e for e in queue.environments if e.is_usable]
    most = sum(e.max_cpu or 0 for e in rooms)
    share = f"queue {queue.name!r} may have {most:g} vCPUs in all" if most else ""
    kinds = {e.platform for e in rooms}
    if kinds and all(kind.endswith("SPOT") for kind in kinds):
        hint = "spot machines can be scarce: another queue, or more instance types, may help"
    return Why(f"waiting for capacity{f': {share}' if share else ''}", hint)


_Demand = tuple[Callable[[Needs], float], Callable[[Machine], float], Callable[[float], str]]
_DEMANDS: Sequence[_Demand] = (
    (lambda n: n.gpu, lambda m: m.gpu, lambda v: f"{v:g} GPU{'' if v == 1 else 's'}"),
    (lambda n: n.memory_mib, lambda m: m.memory_mib, lambda v: memory(int(v))),
    (lambda n: n.cpu, lambda m: m.cpu, lambda v: f"{v:g} vCPUs"),
)


def memory(mib: int) -> str:
    """An amount of memory, for people."""
    return f"{mib:,} MiB" if mib % (_MIB // 4) else f"{mib / _MIB:,g} GiB"


def _takes(environment: Environment, needs: Needs) -> bool:
    if environment.max_cpu is not None and environment.max_cpu < needs.cpu:
        return False
    if environment.machines is None:
        return True
    return any(_fits(machine, needs) for machine in environment.machines)


def _fits(machine: Machine, needs: Needs) -> bool:
    return all(have(machine) >= need(needs) for need, have, _ in _DEMANDS)


def _all_of(needs: Needs) -> str:
    parts: Iterable[str] = (shown(need(needs)) for need, _, shown in _DEMANDS if need(needs))
    return ", ".join(parts)
