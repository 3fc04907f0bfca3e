"""aflow: flows on a laptop and in the cloud. The public names, each loaded when it is first used.

`import engine` imports next to nothing, so that `aflow --help` and a task's process start at once.
"""

import importlib

TYPE_CHECKING = (
    False  # typing's own costs more than the rest of this module; checkers know the name
)
if TYPE_CHECKING:
    from typing import Any

    from engine.errors import EngineError as EngineError
    from engine.errors import FlowError as FlowError
    from engine.errors import ParameterError as ParameterError
    from engine.errors import TaskError as TaskError
    from engine.flow.current import current as current
    from engine.flow.decorators import batch as batch
    from engine.flow.decorators import catch as catch
    from engine.flow.decorators import environment as environment
    from engine.flow.decorators import parallel as parallel
    from engine.flow.decorators import resources as resources
    from engine.flow.decorators import retry as retry
    from engine.flow.decorators import timeout as timeout
    from engine.flow.includes import IncludeFile as IncludeFile
    from engine.flow.parameters import JSONType as JSONType
    from engine.flow.parameters import Parameter as Parameter
    from engine.flow.spec import FlowSpec as FlowSpec
    from engine.flow.spec import step as step
    from engine.s3 import S3 as S3

__version__ = "0.1.0"

_HOMES = {
    "engine.flow.spec": ("FlowSpec", "step"),
    "engine.flow.includes": ("IncludeFile",),
    "engine.flow.parameters": ("JSONType", "Parameter"),
    "engine.flow.current": ("current",),
    "engine.flow.decorators": (
        "batch",
        "catch",
        "environment",
        "parallel",
        "resources",
        "retry",
        "timeout",
    ),
    "engine.runtime": ("Engine",),
    "engine.s3": ("S3",),
    "engine.client": ("DataArtifact", "Flow", "Run", "Step", "Task"),
    "engine.errors": (
        "ConfigError",
        "EngineError",
        "FlowError",
        "LimitExceededError",
        "MissingInMergeArtifactsException",
        "NotFoundError",
        "ParameterError",
        "StoreError",
        "TaskError",
        "TaskFailedError",
        "TaskLostError",
        "TaskTimedOutError",
        "UnhandledInMergeArtifactsException",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> "Any":  # Any: each name has its own type, see TYPE_CHECKING
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
