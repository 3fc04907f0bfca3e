"""`current`: the facts of the task that this process runs.

One process runs one task, so there is one object. The worker binds it before the step's code runs.
"""

import importlib
from typing import TYPE_CHECKING, Any

from engine.flow.words import did_you_mean, listed

if TYPE_CHECKING:
    from engine.flow.graph import Graph

FACTS = (
    "flow_name",
    "run_id",
    "origin_run_id",
    "step_name",
    "task_id",
    "retry_count",
    "pathspec",
    "namespace",
    "username",
    "tags",
    "parameter_names",
    "tempdir",
    "graph",
    "is_parallel",
    "task",
    "run",
)
"""What every task knows; decorators may add to it."""


class Current:
    """`current.run_id` and so on. Outside of a task there are no facts, and asking says so."""

    if TYPE_CHECKING:
        flow_name: str
        run_id: str
        origin_run_id: str | None
        step_name: str
        task_id: str
        retry_count: int
        pathspec: str
        namespace: str | None
        username: str
        tags: frozenset[str]
        parameter_names: list[str]
        tempdir: str
        graph: Graph
        is_parallel: bool
        parallel: Any  # engine.worker.gang.Parallel, in a @parallel step

    @property
    def is_running_flow(self) -> bool:
        """Whether this process runs a task."""
        return bool(self.__dict__)

    def get(self, name: str, default: Any = None) -> Any:  # Any: facts are of many types
        """A fact, or `default` where there is none of that name."""
        return getattr(self, name, default)

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __getattr__(self, name: str) -> Any:  # Any: facts are of many types
        facts = self.__dict__
        if name in ("task", "run") and "pathspec" in facts:
            # By name: the client stands above the flow language; most tasks never ask for it.
            client = importlib.import_module("engine.client")
            flow, run, *_ = facts["pathspec"].split("/")
            if name == "task":
                value = client.Task(facts["pathspec"])
            else:
                value = client.Run(f"{flow}/{run}")
            facts[name] = value
            return value
        if not facts:
            raise AttributeError(f"current.{name} is known in a running step, not outside of one")
        hint = did_you_mean(name, {*FACTS, *facts}) or f"it has {listed(sorted(facts))}"
        raise AttributeError(f"current has no {name!r} in this task ({hint})")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"current.{name} cannot be set: the task's facts are read-only")

    def __repr__(self) -> str:
        return f"<current: {self.__dict__.get('pathspec', 'no task')}>"

    def _bind(self, **facts: object) -> None:
        """Make these the facts of the process, in the place of all before them. For the worker."""
        self.__dict__.clear()
        self.__dict__.update(facts)


current = Current()
