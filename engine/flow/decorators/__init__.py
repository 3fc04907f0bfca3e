"""Step decorators: frozen values, one file each. `specs.py` reads them from `--with`."""

from engine.flow.decorators.base import StepDecorator, StepMark
from engine.flow.decorators.batch import Batch, batch
from engine.flow.decorators.catch import Catch, catch
from engine.flow.decorators.environment import Environment, environment
from engine.flow.decorators.parallel import Parallel, parallel
from engine.flow.decorators.resources import Resources, resources
from engine.flow.decorators.retry import Retry, retry
from engine.flow.decorators.timeout import Timeout, timeout

BUILT_IN: tuple[type[StepDecorator], ...] = (
    Batch,
    Catch,
    Environment,
    Parallel,
    Resources,
    Retry,
    Timeout,
)

__all__ = [
    "BUILT_IN",
    "Batch",
    "Catch",
    "Environment",
    "Parallel",
    "Resources",
    "Retry",
    "StepDecorator",
    "StepMark",
    "Timeout",
    "batch",
    "catch",
    "environment",
    "parallel",
    "resources",
    "retry",
    "timeout",
]
