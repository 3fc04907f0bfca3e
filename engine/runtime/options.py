"""What one run is asked to do. A value; the command line, notebooks and services all build it."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from msgspec import Struct, field

from engine.config import Config
from engine.scheduler.machine import OnFailure


class RunOptions(Struct, frozen=True):
    """One run.

    `parameters` are values or texts by parameter name. `decorators` are `--with` specs such as
    "retry:times=3". `resume` names the run to go on from: an id of the same flow. `resume_step`
    runs that step and all that follows again, whatever the origin finished. `run_id_file` gets the
    run's id before the first task starts. With `detach`, a run that is cancelled leaves its jobs in
    AWS Batch to themselves.
    """

    parameters: Mapping[str, object] = field(default_factory=dict)
    max_workers: int | None = None
    tags: tuple[str, ...] = ()
    decorators: tuple[str, ...] = ()
    on_failure: str | None = None
    isolation: str | None = None
    max_num_splits: int | None = None
    run_id_file: Path | None = None
    resume: str | None = None
    resume_step: str | None = None
    detach: bool = False


class RunSettings(Struct, frozen=True):
    """Options and configuration merged: what the run is composed from."""

    max_workers: int
    on_failure: OnFailure
    isolation: str
    max_num_splits: int

    @classmethod
    def merge(cls, options: RunOptions, config: Config) -> "RunSettings":
        return cls(
            max_workers=options.max_workers or config.max_workers,
            # The configuration checks its own words, and the flag is made of the same ones.
            on_failure=cast(OnFailure, options.on_failure or config.on_failure),
            isolation=options.isolation or config.isolation,
            max_num_splits=options.max_num_splits or config.max_num_splits_guard,
        )
