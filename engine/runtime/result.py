"""What `Engine.run` gives back: how a run went, and the data it left."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from engine.errors import Failure, TaskError
from engine.stores.artifacts import load_entry
from engine.stores.directory import BlobDirectory
from engine.stores.manifest import Entry, Manifest


class RunFailedError(TaskError):
    """The run did not succeed."""

    code = "run-failed"

    def __init__(self, run: "FinishedRun") -> None:
        reason = run.reason or "it was interrupted"
        super().__init__(
            f"run {run.pathspec} {run.status}: {reason}",
            hint=run.failure.hint if run.failure and run.failure.hint else None,
            where=run.failure.where if run.failure and run.failure.where else None,
        )
        self.run = run

    def details(self) -> dict[str, Any]:  # Any: facts are of many types
        run = self.run
        return {"run": run.pathspec, "status": run.status, "reason": run.reason}


class RunData:
    """The artifacts of a run's end step as attributes; each is loaded when it is asked for."""

    def __init__(self, pathspec: str, entries: dict[str, Entry], blobs: BlobDirectory) -> None:
        self._pathspec = pathspec
        self._entries = entries
        self._blobs = blobs

    def __getattr__(self, name: str) -> Any:  # Any: users' values
        try:
            entry = self._entries[name]
        except KeyError:
            raise AttributeError(
                f"{self._pathspec} has no artifact {name!r}; it has {', '.join(self) or 'none'}"
            ) from None
        value = load_entry(entry, self._blobs)
        setattr(self, name, value)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._entries]

    def __repr__(self) -> str:
        return f"<RunData of {self._pathspec}: {', '.join(self) or 'nothing'}>"


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that has ended. `status` is "succeeded", "failed" or "interrupted"."""

    flow: str
    run_id: str
    status: str
    blobs: BlobDirectory = field(repr=False)
    end: Manifest | None = field(default=None, repr=False)
    reason: str | None = None
    failure: Failure | None = None
    failed_task: str | None = None
    origin_run_id: str | None = None

    @property
    def id(self) -> str:
        return self.run_id

    @property
    def pathspec(self) -> str:
        return f"{self.flow}/{self.run_id}"

    @property
    def successful(self) -> bool:
        return self.status == "succeeded"

    @property
    def data(self) -> RunData:
        """The artifacts of the end step; none when the run did not reach it."""
        entries = dict(self.end.artifacts) if self.end else {}
        return RunData(self.pathspec, entries, self.blobs)

    def raise_for_status(self) -> None:
        """Raises RunFailedError unless the run succeeded."""
        if not self.successful:
            raise RunFailedError(self)
