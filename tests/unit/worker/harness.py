"""Runs single attempts in this process, as a task's process would."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgpack
from msgspec.structs import replace

from engine.errors import Failure
from engine.flow.current import current
from engine.flow.decorators.specs import decorators_of
from engine.flow.graph import Graph, Kind, Node
from engine.flow.lint import graph_of
from engine.flow.spec import FlowSpec, steps_of
from engine.ids import Frame
from engine.stores.artifacts import load_entry, save_values
from engine.stores.directory import BlobDirectory
from engine.stores.layout import create_layout
from engine.stores.manifest import Manifest
from engine.stores.packed import pack_list
from engine.stores.taskspec import InputRef, Report, TaskSpec
from engine.worker.execute import Program, run_attempt


class Bench:
    """A datastore and a flow; `run` runs an attempt at one of its steps."""

    def __init__(self, flow: type[FlowSpec], folder: Path, graph: Graph | None = None) -> None:
        self.layout = create_layout(folder / "store")
        self.blobs: BlobDirectory = self.layout.blob_directory()
        self.program = Program(flow, graph or graph_of(flow), decorators_of(flow))
        self.parameters = Manifest(flow.__name__, "run", "_parameters", "0", 0).pack()

    def with_parameters(self, values: Mapping[str, object]) -> None:
        entries = save_values(values, self.blobs, step="_parameters")
        flow = self.program.flow.__name__
        self.parameters = Manifest(flow, "run", "_parameters", "0", 0, entries).pack()

    def spec(self, step: str, inputs: Sequence[Manifest] = (), **fields: object) -> TaskSpec:
        spec = TaskSpec(
            flow=self.program.flow.__name__,
            run_id="run",
            step=step,
            task_id="0",
            attempt=0,
            datastore=str(self.layout.root),
            parameters=self.parameters,
            inputs=[InputRef(m.step, m.task_id, m.pack()) for m in inputs],
            username="somebody",
        )
        spec = replace(spec, **fields)  # type: ignore[arg-type]  # whatever the test sets
        return TaskSpec.unpack(spec.pack())

    def run(self, step: str, inputs: Sequence[Manifest] = (), **fields: object) -> Report:
        try:
            report = run_attempt(self.program, self.spec(step, inputs, **fields))
        finally:
            current._bind()
        return Report.unpack(report.pack())

    def manifest(self, step: str, inputs: Sequence[Manifest] = (), **fields: object) -> Manifest:
        """The manifest of an attempt that succeeds."""
        report = self.run(step, inputs, **fields)
        assert report.failure is None, report.failure.traceback
        data = report.manifest
        if data is None:
            assert report.manifest_digest is not None
            data = self.blobs.read(report.manifest_digest)
        return Manifest.unpack(data)

    def failure(self, step: str, inputs: Sequence[Manifest] = (), **fields: object) -> Failure:
        """How an attempt fails."""
        failure = self.run(step, inputs, **fields).failure
        assert failure is not None
        return failure

    def values(self, manifest: Manifest) -> dict[str, object]:
        return {name: load_entry(e, self.blobs) for name, e in manifest.artifacts.items()}

    def bundle(self, inputs: Sequence[Manifest]) -> str:
        """Store the inputs of a wide join; return the digest."""
        refs = [msgpack.packb([m.step, m.task_id, m.pack()]) for m in inputs]
        return self.blobs.write((pack_list(refs),))[0]


def in_foreach(split: str, index: int, total: int, item: bytes) -> dict[str, object]:
    """The fields of a spec that make it one child of a foreach."""
    return {
        "task_id": str(index),
        "frames": (Frame(split, index, total),),
        "items": [item],
        "items_whole": [False],
    }


def whole_list(manifest: Manifest) -> bytes:
    assert manifest.items is not None
    return manifest.items.pack()


def loose_graph(flow: type[FlowSpec], target: str) -> Graph:
    """A graph in which every step leads to `target`, for flows that no lint would pass."""
    decorators = decorators_of(flow)
    nodes = {}
    for name in steps_of(flow):
        foreach = {"fans_out_over_nothing": "nothing", "fans_out_over_an_iterator": "numbers"}
        nodes[name] = Node(
            name=name,
            kind=Kind.FOREACH if name in foreach else Kind.LINEAR,
            next=(target,),
            foreach=foreach.get(name),
            catches=any(d.name == "catch" for d in decorators[name]),
            where=f"flows.py:{name}",
        )
    return Graph(flow.__name__, nodes)
