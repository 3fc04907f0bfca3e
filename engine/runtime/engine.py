"""The engine: where the parts of a run are chosen and joined. Contains no logic of its own.

`Engine.run` is for programs that want the result, `stream` for those that want to watch. Nothing
here installs a signal handler or needs the main thread, so a run can live in a notebook, a web
server, a test, or inside another flow's step.
"""

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypedDict, Unpack

from engine import config as configuration
from engine.config import Config
from engine.errors import UsageError
from engine.executors.zygote import Zygote
from engine.flow.spec import FlowSpec
from engine.runtime.clock import Clocks
from engine.runtime.options import RunOptions
from engine.runtime.result import FinishedRun
from engine.runtime.run import Run
from engine.runtime.stores import Stores, open_stores
from engine.scheduler.progress import Observer, ResumePlanned, RunEvent


class RunKeywords(TypedDict, total=False):
    """Keywords of `Engine.run`, `run_sync`, `resume` and `stream`: the fields of RunOptions."""

    params: Mapping[str, object]
    max_workers: int
    tags: tuple[str, ...]
    decorators: tuple[str, ...]
    on_failure: str
    isolation: str
    max_num_splits: int
    resume_step: str
    detach: bool


class Engine:
    """Runs flows on the stores of a configuration.

    Args:
        config: settings; by default those of the environment and the configuration files.
        clocks: by default the machine's.
    """

    def __init__(self, config: Config | None = None, *, clocks: Clocks | None = None) -> None:
        self.config = config or configuration.load()
        self._clocks = clocks or Clocks()
        self._stores: Stores | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the stores. Runs that are under way are their callers' to end first."""
        if self._stores is not None:
            stores, self._stores = self._stores, None
            await stores.aclose()

    async def execute(
        self,
        flow: type[FlowSpec],
        options: RunOptions | None = None,
        *,
        observers: tuple[Observer, ...] = (),
        zygote: Zygote | None = None,
    ) -> FinishedRun:
        """Run `flow` to its end and say how it went; a failed run is a result, not an error.

        Args:
            flow: the flow's class.
            options: what the run is asked to do.
            observers: called on this loop for each event of the run, in order.
            zygote: a fork server that has the flow in memory, ended with the run, or with what is
                raised here; made if there is none.

        Raises:
            FlowError: the flow is not well formed.
            ParameterError: a parameter does not fit.
            RunHeldError: the run to go on from is being driven.
            StoreError: the stores do not work.
            CancelledError: the caller was cancelled; by then no process of the run is left.
        """
        try:
            if self._stores is None:
                self._stores = open_stores(self.config, create=True)
            run = Run(flow, options or RunOptions(), self.config, self._stores, self._clocks)
        except BaseException:
            if zygote is not None:
                await asyncio.to_thread(zygote.kill)
            raise
        return await run.execute(observers, zygote)

    async def stream(
        self, flow: type[FlowSpec], **keywords: Unpack[RunKeywords]
    ) -> AsyncGenerator[RunEvent, None]:
        """Run `flow` and yield each event as it happens, the last a RunDone.

        Leaving the loop early cancels the run once the generator is closed (`aclosing` says when).
        """
        events: asyncio.Queue[RunEvent | Exception | None] = asyncio.Queue()

        async def work() -> None:
            # Raised here, an error would make the group cancel whatever the caller waits for.
            end: Exception | None = None
            try:
                await self.execute(flow, _options(keywords), observers=(events.put_nowait,))
            except Exception as error:  # noqa: BLE001 - raised where the caller asks for an event
                end = error
            finally:
                events.put_nowait(end)

        async with asyncio.TaskGroup() as group:
            running = group.create_task(work(), name=f"run of {flow.__name__}")
            try:
                while isinstance(event := await events.get(), RunEvent):
                    yield event
            except GeneratorExit:
                running.cancel()
                return
        if event is not None:
            raise event

    @staticmethod
    async def run(
        flow: type[FlowSpec], *, config: Config | None = None, **keywords: Unpack[RunKeywords]
    ) -> FinishedRun:
        """Run `flow` to its end in the running loop.

        Cancelling the awaiter cancels the run and leaves no process.

        Raises:
            RunFailedError: the run did not succeed; its `run` says how far it came.
            FlowError, ParameterError, StoreError: as `execute`.
        """
        async with Engine(config) as engine:
            finished = await engine.execute(flow, _options(keywords))
        finished.raise_for_status()
        return finished

    @staticmethod
    async def resume(
        flow: type[FlowSpec],
        run: "str | RunLike | None" = None,
        *,
        config: Config | None = None,
        **keywords: Unpack[RunKeywords],
    ) -> FinishedRun:
        """Start a run that goes on from another: reuses what it has committed, and does the rest.

        Args:
            flow: the flow's class, as it is now: what is done again is done by its code.
            run: the run to go on from, its id or a run as `run` or the client gives it; by default
                the flow's latest. Its parameters are those of the new one.
            config: settings.
            keywords: as for `run`; `resume_step` runs that step and all that follows again.

        Raises:
            NotFoundError: there is no such run.
            RunHeldError: it is being driven.
            RunFailedError: the new run did not succeed.
        """
        async with Engine(config) as engine:
            finished = await engine.execute(flow, _resuming(flow, run, keywords))
        finished.raise_for_status()
        return finished

    @staticmethod
    async def plan_resume(
        flow: type[FlowSpec],
        run: "str | RunLike | None" = None,
        *,
        config: Config | None = None,
        **keywords: Unpack[RunKeywords],
    ) -> ResumePlanned:
        """Say what `resume` would reuse and what it would do, and why. Nothing is written.

        Raises:
            NotFoundError: there is no such run, or no datastore.
        """
        config = config or configuration.load()
        options = _resuming(flow, run, keywords)
        stores = open_stores(config, create=False)
        try:
            return await Run(flow, options, config, stores, Clocks()).plan()
        finally:
            await stores.aclose()

    @staticmethod
    def run_sync(
        flow: type[FlowSpec], *, config: Config | None = None, **keywords: Unpack[RunKeywords]
    ) -> FinishedRun:
        """`run` for code that is not async; in a running loop (a notebook) it has its own thread.

        Raises:
            RunFailedError: the run did not succeed.
        """
        return _in_a_loop(lambda: Engine.run(flow, config=config, **keywords))

    @staticmethod
    def resume_sync(
        flow: type[FlowSpec],
        run: "str | RunLike | None" = None,
        *,
        config: Config | None = None,
        **keywords: Unpack[RunKeywords],
    ) -> FinishedRun:
        """`resume` for code that is not async; see `run_sync`."""
        return _in_a_loop(lambda: Engine.resume(flow, run, config=config, **keywords))


class RunLike(Protocol):
    """A run as `Engine.run` and the client give it."""

    @property
    def pathspec(self) -> str: ...


def _in_a_loop(start: Callable[[], Coroutine[Any, Any, FinishedRun]]) -> FinishedRun:
    """Run a coroutine to its end: here, or in a thread of its own where a loop runs already."""
    begun: Future[Callable[[str], object]] = Future()

    async def work() -> FinishedRun:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is not None:
            begun.set_result(partial(loop.call_soon_threadsafe, task.cancel))
        return await start()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1, "aflow run_sync") as pool:
        running = pool.submit(context.run, asyncio.run, work())
        try:
            return running.result()
        except KeyboardInterrupt:  # of this thread: the other one knows nothing of it
            with suppress(RuntimeError):  # it has ended meanwhile
                begun.result()("by SIGINT")
            raise


def _resuming(
    flow: type[FlowSpec], run: "str | RunLike | None", keywords: RunKeywords
) -> RunOptions:
    """The options of a run that goes on from `run`: an id, or `Flow/id`.

    Raises:
        UsageError: it is a run of another flow.
    """
    named = "" if run is None else run if isinstance(run, str) else run.pathspec
    name, slash, run_id = named.rpartition("/")
    if slash and name != flow.__name__:
        raise UsageError(
            f"run {named} is of another flow than {flow.__name__}",
            hint=f"a run of {flow.__name__} can be resumed by it",
        )
    return _options(keywords, resume=run_id)


def _options(keywords: RunKeywords, *, resume: str | None = None) -> RunOptions:
    fields: dict[str, Any] = dict(keywords)  # Any: each of its own type, checked by RunKeywords
    fields["parameters"] = fields.pop("params", {})
    return RunOptions(resume=resume, **fields)
