"""The root of the tree of errors, and what goes wrong with flows, tasks, settings and words."""

from collections.abc import Sequence
from typing import Any, ClassVar

EXIT_RUN_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFIG = 3
EXIT_AUTH = 4
EXIT_NOT_FOUND = 5
EXIT_INFRASTRUCTURE = 6
EXIT_LIMIT = 7
EXIT_BUG = 70
EXIT_TIMEOUT = 124


class EngineError(Exception):
    """The engine could not do what was asked."""

    code: ClassVar[str] = "engine"
    exit_code: ClassVar[int] = EXIT_BUG
    retryable: ClassVar[bool] = False
    _others: "tuple[EngineError, ...]" = ()

    def __init__(
        self, message: str | None = None, *, hint: str | None = None, where: str | None = None
    ) -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])
        self.hint = hint
        self.where = where  # "file:line  source text" of the user's code, when there is one

    @property
    def message(self) -> str:
        return str(self.args[0])

    @property
    def others(self) -> "tuple[EngineError, ...]":
        """What was found wrong together with this, when all was looked at before raising."""
        return self._others

    @classmethod
    def raise_first(cls, errors: "Sequence[EngineError]") -> None:
        """Raise the first of `errors`, if any; it carries the rest as `others`."""
        if errors:
            errors[0]._others = tuple(errors[1:])
            raise errors[0]

    def details(self) -> dict[str, Any]:  # Any: whatever facts the subclass keeps
        """The error's own facts, for `--json`."""
        return {k: v for k, v in vars(self).items() if not k.startswith("_")}

    def __reduce__(self) -> tuple[Any, ...]:  # Any: pickle's own protocol type
        # Exception.__reduce__ replays __init__ with `args` only and so loses keyword arguments.
        return _rebuild, (type(self), self.args), self.__dict__


def _rebuild(cls: type[EngineError], args: tuple[Any, ...]) -> EngineError:
    error = cls.__new__(cls)
    error.args = args
    return error


class UsageError(EngineError):
    """The command was called with words that do not fit together."""

    code = "usage"
    exit_code = EXIT_USAGE


class UnsafeNameError(UsageError):
    """A name is not one that can be part of a path."""

    code = "name"

    def __init__(self, what: str, name: str, *, problem: str) -> None:
        super().__init__(
            f"{what} {name!r} {problem}",
            hint="names are 1 to 128 letters, digits, `_`, `-` and `.`; the first is a letter, "
            "a digit or `_`",
        )
        self.what, self.name, self.problem = what, name, problem


class FlowError(EngineError):
    """The flow is not well formed."""

    code = "flow"
    exit_code = EXIT_RUN_FAILED


class ParameterError(EngineError):
    """A parameter's value does not fit its declaration."""

    code = "parameter"
    exit_code = EXIT_USAGE


class ConfigError(EngineError):
    """A setting is unknown or its value does not fit."""

    code = "config"
    exit_code = EXIT_CONFIG


class CodePackageError(ConfigError):
    """A flow's code cannot be packaged."""

    code = "code-package"

    def __init__(self, what: str, *, problem: str, hint: str | None = None) -> None:
        super().__init__(f"{what} {problem}", hint=hint)
        self.what, self.problem = what, problem


class NotFoundError(EngineError):
    """Nothing of that name exists."""

    code = "not-found"
    exit_code = EXIT_NOT_FOUND


class TaskError(EngineError):
    """A task could not be completed."""

    code = "task"
    exit_code = EXIT_RUN_FAILED


class TaskFailedError(TaskError):
    """The step's code raised."""

    code = "task-failed"


class TaskTimedOutError(TaskError):
    """The task ran longer than its @timeout allows."""

    code = "task-timeout"
    exit_code = EXIT_RUN_FAILED
    retryable = True


class TaskLostError(TaskError):
    """The task's process ended without saying how."""

    code = "task-lost"
    retryable = True


class MergeError(TaskError):
    """merge_artifacts was called where, or as, it cannot be."""

    code = "merge"


class UnhandledInMergeArtifactsException(MergeError):  # noqa: N818  # Metaflow's name
    """The branches of a join have different values for an artifact."""

    code = "merge-conflict"

    def __init__(self, step: str, artifacts: list[str]) -> None:
        names = ", ".join(repr(a) for a in artifacts)
        super().__init__(
            f"join {step!r} cannot merge {names}: the branches have different values",
            hint="set each in the join before merge_artifacts, or name it in exclude=",
        )
        self.step, self.artifacts = step, artifacts

    @property
    def artifact_names(self) -> list[str]:
        """The same, by Metaflow's name."""
        return self.artifacts


class MissingInMergeArtifactsException(MergeError):  # noqa: N818  # Metaflow's name
    """No branch of a join has an artifact that include= names."""

    code = "merge-missing"

    def __init__(self, step: str, artifacts: list[str]) -> None:
        names = ", ".join(repr(a) for a in artifacts)
        super().__init__(
            f"join {step!r} includes {names} in merge_artifacts, which no branch has",
            hint="remove it from include=, or set it in a branch",
        )
        self.step, self.artifacts = step, artifacts

    @property
    def artifact_names(self) -> list[str]:
        """The same, by Metaflow's name."""
        return self.artifacts


class TaskCancelledError(TaskError):
    """The task was ended before it was done."""

    code = "task-cancelled"


class ExecutorError(EngineError):
    """An executor could not run a job."""

    code = "executor"
    exit_code = EXIT_INFRASTRUCTURE


class JobRejectedError(ExecutorError):
    """The job cannot be run here."""

    code = "job-rejected"


class LimitExceededError(EngineError):
    """A configured limit would be passed."""

    code = "limit"
    exit_code = EXIT_LIMIT


class ServiceError(EngineError):
    """A service did not answer as it should."""

    code = "service"
    exit_code = EXIT_INFRASTRUCTURE


class PluginError(EngineError):
    """A plugin could not be loaded."""

    code = "plugin"
    exit_code = EXIT_CONFIG


class InvariantError(EngineError):
    """The engine contradicted itself: a bug in aflow, not in the flow."""

    code = "invariant"

    def __init__(self, message: str, *, story: list[str]) -> None:
        super().__init__(message, hint="please report this with the lines above it")
        self.story = story
        for line in story:
            self.add_note(line)
