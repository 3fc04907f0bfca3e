"""A plan of what goes wrong, seeded. Pure: the same plan and the same jobs, the same faults.

A plan is JSON: {"seed": 7, "rules": [{"fault": "reclaim", "job": "train-*", "chance": 0.1}, ...]}.
What a rule does follows from the seed, the job's name and index and the attempt, and not from the
order in which things happen.
"""

import random
from collections.abc import Mapping
from fnmatch import fnmatchcase

import msgspec
from msgspec import Struct, field

from engine.errors import ConfigError

FAULTS: Mapping[str, str] = {
    "late": "DescribeJobs shows a change of state `after_s` seconds late, and so the event comes",
    "lost": "a change of state is never told as an event; but for the end, nor by DescribeJobs",
    "duplicate": "the event of a change of state comes once more, `after_s` seconds later",
    "throttle": "the request is answered with TooManyRequestsException",
    "lost_reply": "the request is carried out, and the connection ends without an answer",
    "unpullable": "the image cannot be pulled",
    "reclaim": "the machine is taken away `after_s` seconds after the start: SIGTERM, then SIGKILL",
    "oom": "the container is killed for its use of memory `after_s` seconds after the start",
    "aged_out": "`after_s` seconds after its end the job is forgotten",
}


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """`job` is a pattern of job names; `operation` that of an API's action, for faults of requests.

    `attempts` are the attempts concerned, from 1; empty for all. `times` is the most that the rule
    acts; None for no limit.
    """

    fault: str
    job: str = "*"
    operation: str = "*"
    chance: float = 1.0
    attempts: tuple[int, ...] = ()
    after_s: float = 0.0
    times: int | None = None


class Plan(Struct, forbid_unknown_fields=True):
    """Rules, the first that fits and whose chance it is acts."""

    seed: int = 0
    rules: tuple[Rule, ...] = ()
    acted: dict[int, int] = field(default_factory=dict)

    def strike(
        self, fault: str, job: str, key: str = "", *, attempt: int = 0, operation: str = ""
    ) -> Rule | None:
        """The rule by which `fault` befalls a job or a request now, if one does.

        Args:
            fault: one of FAULTS.
            job: its name; "" for a request that names none.
            key: what else tells this chance from others, for example index and state.
            attempt: from 1; 0 where there is none.
            operation: the action that a request asks for; "" for a fault of jobs.
        """
        for number, rule in enumerate(self.rules):
            if rule.fault != fault or (rule.attempts and attempt not in rule.attempts):
                continue
            if not (fnmatchcase(job, rule.job) and fnmatchcase(operation, rule.operation)):
                continue
            if rule.times is not None and self.acted.get(number, 0) >= rule.times:
                continue
            if rule.chance < 1.0:
                dice = random.Random(f"{self.seed}/{number}/{job}/{operation}/{key}/{attempt}")
                if dice.random() >= rule.chance:
                    continue
            self.acted[number] = self.acted.get(number, 0) + 1
            return rule
        return None


class Plans(Struct):
    """Plans by name, so that those who share an emulator do not take each other's away."""

    plans: dict[str, Plan] = field(default_factory=dict)

    def strike(
        self, fault: str, job: str, key: str = "", *, attempt: int = 0, operation: str = ""
    ) -> Rule | None:
        """The rule by which `fault` befalls a job or a request now; see `Plan.strike`."""
        for plan in self.plans.values():
            if rule := plan.strike(fault, job, key, attempt=attempt, operation=operation):
                return rule
        return None


def read_plan(text: str | bytes) -> Plan:
    """A plan from its JSON.

    Raises:
        ConfigError: it is no plan, or names a fault that there is not.
    """
    try:
        plan = msgspec.json.decode(text, type=Plan)
    except msgspec.DecodeError as error:
        raise ConfigError(f"this is no plan of faults: {error}") from error
    if unknown := {rule.fault for rule in plan.rules} - FAULTS.keys():
        known = ", ".join(FAULTS)
        raise ConfigError(f"unknown fault {min(unknown)!r}", hint=f"faults: {known}")
    return plan
