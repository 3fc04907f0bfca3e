"""What goes wrong with what is kept: blobs, journals, datastores, object stores."""

from engine.errors.base import (
    EXIT_AUTH,
    EXIT_CONFIG,
    EXIT_INFRASTRUCTURE,
    ConfigError,
    EngineError,
    TaskError,
)


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


class DatastoreError(ConfigError):
    """A directory cannot serve as a datastore."""

    code = "datastore"

    def __init__(self, path: str, *, problem: str, hint: str) -> None:
        super().__init__(f"{path} {problem}", hint=hint)
        self.path, self.problem = path, problem


class RunHeldError(StoreError):
    """Another process is driving this run."""

    code = "run-held"

    def __init__(self, run: str, *, host: str, pid: int, since: str) -> None:
        how = f", on {host}: kill -INT {pid}" if pid else ""
        super().__init__(
            f"run {run} held by {host}/{pid} since {since}",
            hint=f"wait for it to end, or end that process{how}; a dead one holds nothing, "
            "and that of a lost machine nothing after two minutes",
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
