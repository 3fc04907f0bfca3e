"""How many vCPUs the compute environments of a queue have left. Pure.

Source of the texts: AWS Batch User Guide, "Jobs stuck in a RUNNABLE status" (read 2026-11).
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct, field

from engine.testing.batch.jobs import Work

ALL_INVALID = "ACTION_REQUIRED - CE(s) associated with the job queue are invalid."
TOO_FEW_VCPUS = (
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - CE(s) associated with the job queue "
    "cannot meet the CPU requirement of the job."
)
TOO_SMALL = (
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) is "
    "higher than that can be met by the CE(s) attached to the job queue."
)


class Environment(Struct, frozen=True):
    """A compute environment; `largest_mib` and `largest_vcpus` are of its largest machine."""

    arn: str
    is_enabled: bool
    max_vcpus: float
    largest_mib: int
    largest_vcpus: float


class Capacity(Struct):
    """`environments` tells those of a queue, in their order."""

    environments: Callable[[str], Sequence[Environment]]
    used: dict[str, float] = field(default_factory=dict)

    def take(self, queue: str, work: Work) -> tuple[str, str]:
        """Take room for a job.

        Returns:
            the compute environment's ARN; else "" and why it can never have room, if so.
        """
        enabled = [each for each in self.environments(queue) if each.is_enabled]
        if not enabled:
            return "", ALL_INVALID
        wide = [each for each in enabled if work.vcpus <= each.max_vcpus]
        if not wide:
            return "", TOO_FEW_VCPUS
        fit = [each for each in wide if _has_machine(each, work)]
        if not fit:
            return "", TOO_SMALL
        for each in fit:
            if self.used.get(each.arn, 0.0) + work.vcpus <= each.max_vcpus:
                self.used[each.arn] = self.used.get(each.arn, 0.0) + work.vcpus
                return each.arn, ""
        return "", ""

    def give_back(self, place: str, work: Work) -> None:
        self.used[place] -= work.vcpus

    def snapshot(self) -> Mapping[str, float]:
        """vCPUs in use, by compute environment."""
        return dict(self.used)


def _has_machine(environment: Environment, work: Work) -> bool:
    return all(
        node.memory_mib <= environment.largest_mib and node.vcpus <= environment.largest_vcpus
        for node in work.nodes
    )
