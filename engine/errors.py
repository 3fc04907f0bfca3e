"""Every exception the engine raises on purpose, in one tree, and failures as data.

Imports nothing from the package, so any module may import it. An error carries its facts as
attributes, a unique `code`, the `exit_code` of the command line, whether trying again can help, and
a hint. A user's exception is never carried as an object: a `Failure` holds its text.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from msgspec import Struct
from msgspec.structs import asdict, replace

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


class UnfitPlaceError(ConfigError):
    """A directory, or what is in it, cannot serve as what it is to be."""

    code = "unfit-place"

    def __init__(self, path: str, *, problem: str, hint: str | None = None) -> None:
        super().__init__(f"{path} {problem}", hint=hint)
        self.path, self.problem = path, problem


class CodePackageError(UnfitPlaceError):
    """A flow's code cannot be packaged."""

    code = "code-package"


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
    artifacts: list[str]

    @property
    def artifact_names(self) -> list[str]:
        return self.artifacts  # by Metaflow's name


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


class TaskCancelledError(TaskError):
    """The task was ended before it was done."""

    code = "task-cancelled"


class StoreError(EngineError):
    """A store could not complete an operation."""

    code = "store"
    exit_code = EXIT_INFRASTRUCTURE


class BlobNotFoundError(StoreError):
    """No blob is stored under this key."""

    code = "blob-not-found"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"no blob is stored under {key!r}",
            hint="`aflow fsck` lists what is missing; `aflow resume` makes it again",
        )
        self.key = key


class BlobCorruptError(StoreError):
    """A blob's bytes do not match its digest."""

    code = "blob-corrupt"

    def __init__(self, key: str, *, expected: str, actual: str) -> None:
        super().__init__(
            f"blob {key!r} has digest {actual[:12]}, expected {expected[:12]}",
            hint="run `aflow fsck` to list every damaged artifact",
        )
        self.key, self.expected, self.actual = key, expected, actual


class StoreUnavailableError(StoreError):
    """The store did not answer, or did not take the bytes."""

    code = "store-unavailable"
    retryable = True


class StoreThrottledError(StoreUnavailableError):
    """The store asks for fewer requests."""

    code = "store-throttled"


class StoreGaveUpError(StoreUnavailableError):
    """A request was tried again until its deadline, in vain."""

    code = "store-gave-up"

    def __init__(
        self, doing: str, *, elapsed_s: float, attempts: int, problem: str, hint: str | None
    ) -> None:
        super().__init__(
            f"could not {doing} in {elapsed_s:.1f} s, {attempts} attempts: {problem}", hint=hint
        )
        self.doing, self.elapsed_s, self.attempts = doing, elapsed_s, attempts
        self.problem = problem


class StoreDeniedError(StoreError):
    """The store does not let these credentials in."""

    code = "store-denied"
    exit_code = EXIT_AUTH


class StoreUnreachableError(StoreUnavailableError):
    """Nothing answers where the store should be."""

    code = "store-unreachable"


class StoreSettingError(StoreError):
    """The settings lead to no store: a wrong bucket, region or endpoint."""

    code = "store-setting"
    exit_code = EXIT_CONFIG


class BlobChangedError(StoreError):
    """A blob was replaced while it was read."""

    code = "blob-changed"


class UploadGoneError(StoreError):
    """An upload in parts is not there: it was finished or aborted."""

    code = "upload-gone"


class UploadConflictError(StoreError):
    """Another writer of the same key came between: the upload must be begun again."""

    code = "upload-conflict"


class StoreAccessError(StoreUnavailableError):
    """The file system refused an operation on a store's file."""

    code = "store-access"

    def __init__(
        self,
        path: str,
        *,
        doing: str,
        problem: str,
        need_bytes: int | None = None,
        free_bytes: int | None = None,
        hint: str | None = None,
    ) -> None:
        room = ""
        if need_bytes is not None and free_bytes is not None:
            room = f"; {need_bytes:,} bytes are needed, {free_bytes:,} are free"
        super().__init__(f"cannot {doing} {path}: {problem}{room}", hint=hint)
        self.path, self.doing, self.problem = path, doing, problem
        self.need_bytes, self.free_bytes = need_bytes, free_bytes


class DatastoreError(UnfitPlaceError):
    """A directory cannot serve as a datastore."""

    code = "datastore"


class RunHeldError(StoreError):
    """Another process is driving this run."""

    code = "run-held"

    def __init__(self, run: str, *, host: str, pid: int, since: str) -> None:
        super().__init__(
            f"run {run} held by {host}/{pid} since {since}",
            hint="wait for it to end, or end that process; a dead one holds nothing",
        )
        self.run, self.host, self.pid, self.since = run, host, pid, since


class RunFencedError(StoreError):
    """Another process has taken this run over, so this one may not commit to it."""

    code = "run-fenced"

    def __init__(self, run: str) -> None:
        super().__init__(
            f"run {run} is driven by another process, so nothing more of it is committed from here",
            hint="`aflow status` says by whom",
        )
        self.run = run


class JournalDamagedError(StoreError):
    """A journal holds a frame that cannot be read, with sound ones after it."""

    code = "journal-damaged"

    def __init__(self, path: str, *, offset: int, problem: str) -> None:
        super().__init__(
            f"{path} is damaged at byte {offset:,}: {problem}",
            hint="`aflow fsck` lists what can still be read",
        )
        self.path, self.offset, self.problem = path, offset, problem


class MetadataDamagedError(StoreError):
    """The metadata database is not as it was written."""

    code = "metadata-damaged"

    def __init__(self, path: str, *, problem: str) -> None:
        super().__init__(
            f"{path} is damaged: {problem}",
            hint="`aflow fsck --reindex` makes it again from the journals; no result is lost",
        )
        self.path, self.problem = path, problem


class UnreadableValueError(StoreError):
    """A stored value cannot be turned back into an object here."""

    code = "value-unreadable"

    def __init__(self, type_name: str, *, problem: str, hint: str | None = None) -> None:
        super().__init__(f"a stored {type_name} cannot be loaded: {problem}", hint=hint)
        self.type_name, self.problem = type_name, problem


class UnstorableValueError(TaskError):
    """An artifact's value cannot be serialized.

    `path` leads to the culprit inside the value, for example `self.model['layers'][2].lock`.
    """

    code = "value-unstorable"

    def __init__(self, artifact: str, *, step: str, path: str, problem: str) -> None:
        super().__init__(
            f"artifact {artifact!r} of step {step!r} cannot be stored: {path}: {problem}",
            hint="keep it in a local variable, delete it before the step ends, or give its class "
            "a __getstate__ that leaves it out",
        )
        self.artifact, self.step, self.path, self.problem = artifact, step, path, problem


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


class Failure(Struct, frozen=True):
    """How one attempt failed, as text: it crosses processes, is stored, and is never unpickled.

    `code` is an error code of this module (`task-failed` for an exception of the user's).
    `type` and `message` describe the exception; `traceback` is formatted, the user's frames first;
    `where` is "file:line  source" of the innermost user frame; `log_tail` the last lines printed.
    """

    code: str
    message: str
    type: str = ""
    traceback: str = ""
    where: str = ""
    hint: str = ""
    retryable: bool = True
    log_tail: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """In one line: a user's exception with its type; ours say all in their message."""
        if not self.type or self.type.startswith("engine.") or self.message.startswith(self.type):
            return self.message
        return f"{self.type}: {self.message}" if self.message else self.type

    def to_dict(self) -> dict[str, Any]:  # Any: msgpack takes plain values
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        known = {k: v for k, v in fields.items() if k in cls.__struct_fields__}
        return cls(**{**known, "log_tail": tuple(known.get("log_tail", ()))})

    def with_log_tail(self, lines: tuple[str, ...]) -> Self:
        return replace(self, log_tail=lines)

    @classmethod
    def from_error(cls, error: EngineError) -> Self:
        return cls(
            code=error.code,
            message=error.message,
            type=type(error).__name__,
            where=error.where or "",
            hint=error.hint or "",
            retryable=error.retryable,
        )
