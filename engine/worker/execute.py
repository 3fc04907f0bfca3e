"""One attempt at one task, in its own process: run the step, save what it left, say how it went.

Whatever the step does, `run_attempt` returns a report; a traceback goes to the task's stderr, too.
`sys.exit` in a step is a failure whatever its code, for nothing the step has left is saved by then.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from msgspec import Struct, field

from engine.errors import (
    FlowError,
    TaskLostError,
    TaskTimedOutError,
    UnstorableValueError,
)
from engine.flow.caught import CaughtFailure
from engine.flow.current import current
from engine.flow.decorators.base import StepDecorator
from engine.flow.decorators.catch import Catch
from engine.flow.decorators.parallel import Parallel
from engine.flow.graph import FANS_OUT, Graph, Kind, Transition
from engine.flow.lint import agree
from engine.flow.spec import FlowSpec
from engine.stores.artifacts import pack_items, save_values
from engine.stores.directory import BlobDirectory
from engine.stores.manifest import Entry, Manifest
from engine.stores.remote.ask import asker
from engine.stores.taskspec import CHANNEL_MAX_BYTES, Report, TaskSpec
from engine.worker.context import EntrySource, TaskContext
from engine.worker.failure import failure_of, type_name
from engine.worker.gang import parallel_of, variables_of

_REPORT_ROOM = 64  # what a report adds to the manifest in it


class Program(Struct, frozen=True):
    """A loaded flow: all that the attempts of a run have in common.

    `decorators` are those of each step, with what the command line attached.
    """

    flow: type[FlowSpec]
    graph: Graph
    decorators: Mapping[str, tuple[StepDecorator, ...]] = field(default_factory=dict)


def run_attempt(program: Program, spec: TaskSpec) -> Report:
    """Run the attempt that `spec` describes."""
    directory = BlobDirectory(
        f"{spec.datastore}/blobs",
        durability=spec.durability,
        verify=spec.verify,
        fetch=asker(spec.broker) if spec.broker else None,
    )
    try:
        manifest = _Attempt(program, spec, directory).manifest().pack()
        if len(manifest) + _REPORT_ROOM <= CHANNEL_MAX_BYTES:
            return Report(manifest=manifest)
        return Report(manifest_digest=directory.write((manifest,))[0])
    except BaseException as error:  # noqa: BLE001 (user code may raise anything)
        node = program.graph.nodes.get(spec.step)
        if node is not None and node.is_parallel:
            # The others have lost a peer, and whoever hears of that first has all of the gang end.
            # This one still says why; SIGKILL comes after the grace.
            with suppress(ValueError):  # a thread other than the main one may not
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
        failure = failure_of(error, step=spec.step)
        # For the log, as any program that fails does. The step may have closed its stderr.
        with suppress(Exception):
            sys.stderr.write(failure.traceback)
        return Report(failure=failure)


class _Attempt:
    def __init__(self, program: Program, spec: TaskSpec, directory: BlobDirectory) -> None:
        self._program = program
        self._spec = spec
        self._directory = directory
        self._node = node = program.graph[spec.step]
        self._context = TaskContext(program.flow, spec, directory)
        self._source = self._context.source(is_join=node.is_join)
        self._flow = self._context.flow(self._source, is_join=node.is_join)
        self._catch = _catch_of(program, spec.step)

    def manifest(self) -> Manifest:
        """Run the step, or only its @catch; store what it leaves.

        Raises:
            BaseException: whatever the step raised and @catch did not take.
        """
        if self._spec.fallback is not None:
            caught = CaughtFailure(_FALLBACK_TYPE, self._spec.fallback)
            return self._caught_manifest(self._required_catch(), caught)
        try:
            self._run_step()
        except (Exception, SystemExit) as error:
            if self._catch is None or not self._spec.last_attempt or not self._can_go_on():
                raise
            return self._caught_manifest(self._catch, _caught(error))
        if self._catch and self._catch.var:
            setattr(self._flow, self._catch.var, None)
        return self._saved(*self._transition())

    def _run_step(self) -> None:
        spec, node = self._spec, self._node
        facts = _facts(self._program, spec, self._context.parameter_names)
        variables = spec.environment
        if node.is_parallel:
            facts |= {"is_parallel": True, "parallel": parallel_of(spec)}
            variables = {**variables_of(spec, self._master_port()), **variables}
        if variables:
            os.environ.update(variables)  # noqa: TID251 (@environment, in its own process)
        current._bind(**facts)
        step: Callable[..., object] = getattr(self._flow, spec.step)
        arguments = []
        if node.is_join:
            arguments.append(self._context.inputs(self._closed_foreach()))
        if spec.timeout_s is None:
            step(*arguments)
        else:
            with _time_limit(spec.timeout_s, spec.step):
                step(*arguments)

    def _master_port(self) -> int | None:
        decorators = self._program.decorators.get(self._spec.step, ())
        return next((d.master_port for d in decorators if isinstance(d, Parallel)), None)

    def _closed_foreach(self) -> str | None:
        split = self._node.join_of
        if split is not None and self._program.graph[split].kind in FANS_OUT:
            return split
        return None

    def _transition(self) -> tuple[Transition, Entry | None]:
        """Where the step said that it goes; if it fans out, also its children's items, stored."""
        node, called = self._node, self._flow._transition
        if called is None:
            if node.kind is Kind.END:
                return Transition(()), None
            raise FlowError(
                f"step {node.name!r} ended without calling self.next",
                hint="every way through a step, but the last step, ends with self.next",
                where=node.where,
            )
        targets, foreach = called
        size = self._flow._num_parallel
        agree(node, targets, foreach, is_gang=size is not None)
        if size is not None:
            items: Sequence[object] = range(size)  # of a gang each is told its place
        elif foreach is not None:
            items = self._items(foreach)
        else:
            return Transition(targets), None
        artifact = foreach or "num_parallel"
        entry = pack_items(items, self._directory, step=node.name, artifact=artifact)
        return Transition(targets, len(items)), entry

    def _items(self, name: str) -> Sequence[object]:
        """The foreach's items, as many as there are. An iterator is used up, so a list replaces it.

        Raises:
            FlowError: there are none.
        """
        value = getattr(self._flow, name)
        items = value if isinstance(value, list | tuple) else list(value)
        if iter(value) is value:
            setattr(self._flow, name, items)
        if not items:
            raise FlowError(
                f"step {self._node.name!r} fans out over self.{name}, which has no items",
                hint="a foreach needs at least one: check what the list is made of",
                where=self._node.where,
            )
        return items

    # -- @catch --------------------------------------------------------------------------------

    def _can_go_on(self) -> bool:
        """Whether the step's targets are known without it; lint refuses @catch where not."""
        return self._node.kind not in FANS_OUT

    def _required_catch(self) -> Catch:
        if self._catch is None or not self._can_go_on():
            raise FlowError(f"step {self._node.name!r} has no @catch that could take its failure")
        return self._catch

    def _caught_manifest(self, catch: Catch, caught: CaughtFailure) -> Manifest:
        if catch.print_exception:
            text = str(caught).rstrip()
            sys.stderr.write(f"@catch took the failure of step {self._node.name!r}:\n{text}\n")
        if catch.var:
            setattr(self._flow, catch.var, caught)
        transition = Transition(self._node.next)
        try:
            return self._saved(transition, None, caught=True)
        except UnstorableValueError:  # a half-done step may have left anything
            for name in self._flow._changed():
                if name != catch.var:
                    delattr(self._flow, name)
            return self._saved(transition, None, caught=True)

    # -- saving --------------------------------------------------------------------------------

    def _saved(
        self, transition: Transition, items: Entry | None, *, caught: bool = False
    ) -> Manifest:
        spec, flow = self._spec, self._flow
        entries = dict(self._source.entries)
        for name, source in flow._carried.items():
            assert isinstance(source, EntrySource)  # all that this module hands out
            entries[name] = source.entries[name]
        for name in flow._dropped():
            entries.pop(name, None)
        entries.update(save_values(flow._changed(), self._directory, step=spec.step))
        return Manifest(
            flow=spec.flow,
            run_id=spec.run_id,
            step=spec.step,
            task_id=spec.task_id,
            attempt=spec.attempt,
            artifacts=entries,
            transition=transition,
            items=items,
            caught=caught,
        )


_FALLBACK_TYPE = f"{TaskLostError.__module__}.{TaskLostError.__qualname__}"


def _catch_of(program: Program, step: str) -> Catch | None:
    found = (d for d in program.decorators.get(step, ()) if isinstance(d, Catch))
    return next(found, None)


def _caught(error: BaseException) -> CaughtFailure:
    failure = failure_of(error, step="")
    return CaughtFailure(type_name(error), failure.message, failure.traceback)


def _facts(program: Program, spec: TaskSpec, parameter_names: list[str]) -> dict[str, object]:
    return {
        "flow_name": spec.flow,
        "run_id": spec.run_id,
        "origin_run_id": spec.origin_run_id,
        "step_name": spec.step,
        "task_id": spec.task_id,
        "retry_count": spec.attempt,
        "pathspec": f"{spec.flow}/{spec.run_id}/{spec.step}/{spec.task_id}",
        "namespace": f"user:{spec.username}",
        "username": spec.username,
        "tags": frozenset(spec.tags),
        "parameter_names": parameter_names,
        "tempdir": ".",
        "graph": program.graph,
        "is_parallel": False,
    }


@contextmanager
def _time_limit(timeout_s: float, step: str) -> Iterator[None]:
    """Raise TaskTimedOutError in the step when its time is over.

    A signal interrupts Python code and most system calls; native code that never returns to Python
    is left to the executor's deadline. Saving what the step left is not counted.
    """

    def too_late(_number: int, _frame: FrameType | None) -> NoReturn:
        raise TaskTimedOutError(
            f"step {step!r} ran longer than its @timeout of {timeout_s:g} s",
            hint="give @timeout more, or let the step do less",
        )

    before = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
