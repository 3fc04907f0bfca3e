"""A task as its flow object sees it: artifacts that are loaded when they are touched.

Nothing here reads a blob before user code asks for a value, and what it never asks for is passed on
as the entry that it was.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgpack

from engine.errors import FlowError
from engine.flow.inputs import Inputs
from engine.flow.parameters import Parameter
from engine.flow.spec import ArtifactSource, FlowSpec, TaskBinding
from engine.ids import Frame
from engine.stores.artifacts import load_entry, load_item
from engine.stores.directory import BlobDirectory
from engine.stores.manifest import Entry, Manifest
from engine.stores.packed import PackedList
from engine.stores.taskspec import InputRef, TaskSpec


class EntrySource(ArtifactSource):
    """The artifacts of one manifest; a value is loaded anew by each call of `load`."""

    def __init__(self, entries: Mapping[str, Entry], directory: BlobDirectory) -> None:
        self.entries = entries
        self._directory = directory

    def names(self) -> Collection[str]:
        return self.entries.keys()

    def load(self, name: str) -> Any:  # Any: users' values
        return load_entry(self.entries[name], self._directory)

    def sha(self, name: str) -> str:
        """Tells equal values: bytes alone do not, four zeros being one int32 or two int16."""
        entry = self.entries[name]
        meta = sorted(entry.meta.items())
        return (
            f"{entry.sha} {entry.serializer} {meta}" if meta else f"{entry.sha} {entry.serializer}"
        )


class TaskContext:
    """Makes the flow objects of one task: its own `self`, and a join's inputs."""

    def __init__(self, flow: type[FlowSpec], spec: TaskSpec, directory: BlobDirectory) -> None:
        self._flow = flow
        self._spec = spec
        self._directory = directory
        self._parameters = Manifest.unpack(spec.parameters).artifacts if spec.parameters else {}
        self._refs = _input_refs(spec, directory)

    @property
    def parameter_names(self) -> list[str]:
        """The run's parameters, without the class's constants."""
        return [n for n in self._parameters if isinstance(getattr(self._flow, n, None), Parameter)]

    def source(self, *, is_join: bool) -> EntrySource:
        """What the task inherits: of a join the parameters, else its parent's artifacts, too."""
        entries = dict(self._parameters)
        if not is_join and self._refs:
            entries.update(Manifest.unpack(self._refs[0].manifest).artifacts)
        return EntrySource(entries, self._directory)

    def flow(self, source: EntrySource, *, is_join: bool) -> FlowSpec:
        """The object that the step's function gets as `self`."""
        spec = self._spec
        return self._bound(source, spec.frames, self._item, spec.step, is_join=is_join)

    def inputs(self, closed: str | None) -> Inputs:
        """What a join's function gets as `inputs`. `closed` is the foreach that it closes."""
        return Inputs(_StepNames(self._refs), lambda index: self._input(index, closed))

    def _input(self, index: int, closed: str | None) -> FlowSpec:
        ref = self._refs[index]
        entries = {**self._parameters, **Manifest.unpack(ref.manifest).artifacts}
        frames = self._spec.frames
        if closed is not None:
            frames = (*frames, Frame(closed, index, len(self._refs)))
        source = EntrySource(entries, self._directory)
        return self._bound(source, frames, self._item, ref.step, is_join=False)

    def _bound(
        self,
        source: EntrySource,
        frames: tuple[Frame, ...],
        item: Callable[[int], Any],  # Any: users' values
        step: str,
        *,
        is_join: bool,
    ) -> FlowSpec:
        constants = frozenset(self._parameters)
        return self._flow._bound(TaskBinding(source, frames, item, constants, step, is_join))

    def _item(self, level: int) -> Any:  # Any: users' values
        spec = self._spec
        if level >= len(spec.items):
            raise FlowError(
                "the items of a foreach are not passed on to its join",
                hint="keep what the join needs: self.item = self.input in the step before",
            )
        entry = Entry.unpack(spec.items[level])
        if not spec.items_whole[level]:
            return load_entry(entry, self._directory)
        frames = [frame for frame in spec.frames if frame.is_foreach]
        return load_item(entry, frames[level].index, self._directory)


class _BundledRefs(Sequence[InputRef]):
    """The inputs of a wide join, each decoded when it is asked for."""

    def __init__(self, packed: PackedList) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, index: int) -> InputRef:  # type: ignore[override]  # no slices
        return InputRef(*msgpack.unpackb(self._packed[index]))


class _StepNames(Sequence[str]):
    """The steps that a join's inputs come from."""

    def __init__(self, refs: Sequence[InputRef]) -> None:
        self._refs = refs

    def __len__(self) -> int:
        return len(self._refs)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # no slices
        return self._refs[index].step

    def __iter__(self) -> Iterator[str]:
        return (ref.step for ref in self._refs)


def _input_refs(spec: TaskSpec, directory: BlobDirectory) -> Sequence[InputRef]:
    if spec.inputs_digest is None:
        return spec.inputs
    return _BundledRefs(PackedList(directory.map(spec.inputs_digest)))
