"""What a zygote runs for each job, and the program that a spawned zygote or task is.

    serve CONTROL REPORTS       a zygote that loads the flow itself; its boot comes by CONTROL
    task SPEC REPORTS TOKEN     one task in an interpreter of its own; SPEC holds its boot, too

Imports no asyncio, no click and no SDK: each task would pay.
"""

import os
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Self

import msgpack
from msgspec import Struct

from engine.errors import EngineError, Failure, JobRejectedError, UsageError
from engine.executors.child import end, install_streams
from engine.executors.forkserver import serve_spawned
from engine.executors.process import ReportChannel, Target, exec_target
from engine.flow.decorators.specs import attach
from engine.flow.lint import graph_of
from engine.flow.spec import FlowSpec
from engine.stores.taskspec import Report, TaskSpec
from engine.worker.execute import Program, run_attempt
from engine.worker.loader import load
from engine.worker.warmup import warm_up

_ROOT = str(Path(__file__).parents[2])
# -P: a file of the user's directory must not stand for a module of ours. The package may lie
# outside of the interpreter's own path, in a checkout.
_START = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from engine.worker.main import main; "
    "main(sys.argv[1:])"
)


class Boot(Struct, frozen=True):
    """How another interpreter comes by the flow.

    `flow` is what `loader.load` takes, or a whole Program pickled by value (of a notebook's class,
    or a function's).
    `decorators` are `--with` specs. With `isolation` "spawn" each task is an interpreter of its
    own, and the zygote never loads the flow.
    """

    flow: str | bytes
    decorators: tuple[str, ...] = ()
    isolation: str = "fork"
    sys_path: tuple[str, ...] = ()
    cwd: str = ""

    def pack(self) -> bytes:
        fields = [self.flow, self.decorators, self.isolation, self.sys_path, self.cwd]
        return bytes(msgpack.packb(fields))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        flow, decorators, isolation, sys_path, cwd = msgpack.unpackb(data)
        return cls(flow, tuple(decorators), isolation, tuple(sys_path), cwd)

    @classmethod
    def here(
        cls, flow: str | bytes, decorators: Sequence[str] = (), *, isolation: str = "fork"
    ) -> Self:
        """A boot that finds modules and files as this process does."""
        return cls(flow, tuple(decorators), isolation, tuple(sys.path), os.getcwd())


def program_of(flow: type[FlowSpec], decorators: Sequence[str] = ()) -> Program:
    """Prepare a flow for its tasks; `decorators` are `--with` specs.

    Raises:
        FlowError: the flow is not well formed.
        UsageError: a spec cannot be read.
    """
    attached = attach(flow, decorators)
    return Program(flow, graph_of(flow, attached), attached)


def task_target(program: Program) -> Target:
    """What runs one task of a loaded flow. Made once, before the first fork."""

    def run_task(spec: bytes, report: ReportChannel) -> int:
        try:
            attempt = TaskSpec.unpack(spec)
        except JobRejectedError as error:
            outcome = Report(failure=Failure.from_error(error))
        else:
            outcome = run_attempt(program, attempt)
        report(outcome.pack())
        return 0 if outcome.failure is None else 1

    return run_task


def zygote_argv() -> list[str]:
    """The program for `spawn_zygote`, whose boot is a packed `Boot`."""
    return [sys.executable, "-P", "-c", _START, "serve"]


def main(words: Sequence[str]) -> NoReturn:
    """Be what `words` say; see the head of this module."""
    if words[:1] == ["serve"] and len(words) == 3:
        _serve(words[1:])
    if words[:1] == ["task"] and len(words) == 4:
        _be_task(int(words[1]), words[2:])
    raise UsageError(f"the worker was started with {words!r}")


def _serve(words: Sequence[str]) -> NoReturn:
    server = serve_spawned(words)
    data = server.await_boot()
    if data is None:
        sys.exit(0)
    try:
        target = _target(data)
    except Exception as error:  # noqa: BLE001 (unpickling a class runs what its module says)
        told = str(error) if isinstance(error, EngineError) else repr(error)
        notes = getattr(error, "traceback", "")
        server.fail_boot(f"the flow cannot be loaded in its own process: {told}\n{notes}".strip())
        sys.exit(1)
    server.serve(target, warm_up)


def _target(data: bytes) -> Target:
    boot = Boot.unpack(data)
    if boot.isolation == "fork":
        return task_target(_load(boot))
    become = exec_target([sys.executable, "-P", "-c", _START, "task"])

    def run_task(spec: bytes, report: ReportChannel) -> int:
        return become(msgpack.packb([data, spec]), report)

    return run_task


def _be_task(file: int, words: Sequence[str]) -> NoReturn:
    install_streams()
    report = ReportChannel.from_argv(words)
    with os.fdopen(file, "rb") as source:
        boot, spec = msgpack.unpackb(source.read())
    end(task_target(_load(Boot.unpack(boot)))(spec, report))


def _load(boot: Boot) -> Program:
    """Load the flow as the process that made `boot` did.

    Raises:
        EngineError: it cannot be loaded, or is not sound.
    """
    if boot.cwd:
        os.chdir(boot.cwd)
    if boot.sys_path:
        sys.path[:] = boot.sys_path
    if isinstance(boot.flow, str):
        return program_of(load(boot.flow), boot.decorators)
    program: Program = pickle.loads(boot.flow)  # noqa: S301 (of the process that started us)
    return program
