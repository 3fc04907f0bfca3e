"""Artifacts in a dict, for flows that are bound without a store."""

import hashlib
import pickle
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from engine.flow.spec import FlowSpec, TaskBinding
from engine.ids import Frame

FlowT = TypeVar("FlowT", bound=FlowSpec)


class DictSource:
    """An ArtifactSource that pickles, so that each load is a new object; it counts the loads."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._pickles = {name: pickle.dumps(value) for name, value in (values or {}).items()}
        self.loads: list[str] = []

    def names(self) -> Collection[str]:
        return self._pickles.keys()

    def load(self, name: str) -> Any:
        self.loads.append(name)
        return pickle.loads(self._pickles[name])

    def sha(self, name: str) -> str:
        return hashlib.sha256(self._pickles[name]).hexdigest()


def bound(
    cls: type[FlowT],
    values: Mapping[str, Any] | DictSource | None = None,
    *,
    step: str = "start",
    frames: tuple[Frame, ...] = (),
    items: tuple[Any, ...] = (),
    constants: Collection[str] = (),
    is_join: bool | None = None,
) -> FlowT:
    """A flow object that is a task, with `values` as the artifacts of the step before."""
    source = values if isinstance(values, DictSource) else DictSource(values)
    return cls._bound(
        TaskBinding(
            source=source,
            frames=frames,
            item=items.__getitem__,
            constants=frozenset(constants),
            step=step,
            is_join=bool(is_join),
        )
    )
