"""Runs a flow for `run` and `resume`: chooses what is shown, maps how it ended to an exit code.

The order matters for the time to the first line: the flow is loaded and linted with click and the
flow language only; the runtime forks its server from this process; what draws comes after that, at
the first event.
"""

import gc
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any  # Any: values of many options

from engine.cli.main import GC_DEFAULT
from engine.cli.options import Session
from engine.errors import EXIT_RUN_FAILED

if TYPE_CHECKING:
    from engine.cli.console import Console, Sink
    from engine.executors.process import Target
    from engine.executors.zygote import Zygote
    from engine.flow.spec import FlowSpec
    from engine.runtime.result import FinishedRun
    from engine.scheduler.progress import RunEvent

EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_CLIENTS = frozenset(("obstore", "aiobotocore"))
_AGAIN = "interrupted: ending the tasks; once more to stop at once"
_LEAVING = "interrupted: leaving the jobs in AWS Batch; once more to stop at once"
_AT_ONCE = "interrupted again: stopping at once"


class Display:
    """An observer that becomes the right console when the first event comes."""

    def __init__(self, flow: "type[FlowSpec]", session: Session) -> None:
        self._flow = flow
        self._session = session
        self._console: Console | None = None

    @property
    def console(self) -> "Console":
        if self._console is None:
            self._console = self._choose()
        return self._console

    def __call__(self, event: "RunEvent") -> None:
        self.console.observe(event)

    def say(self, text: str) -> None:
        """Say something between the lines of the run."""
        if not self._session.json:
            self.console.say(text)

    def close(self) -> None:
        """Write what is pending."""
        if self._console is not None:
            self._console.close()

    def end(self, exit_code: int) -> None:
        """Say how the run ended, if it began."""
        if self._console is None:
            return
        from engine.cli.ndjson import JsonConsole

        if isinstance(self._console, JsonConsole):
            self._console.result(exit_code)
        else:
            self._console.summary()

    def _choose(self) -> "Console":
        from engine.cli.console import Console, Look

        session = self._session
        out, err = _sink(session, stderr=False), _sink(session, stderr=True)
        look = Look(out=out, err=err, quiet=session.quiet)
        if session.json:
            from engine.cli.ndjson import JsonConsole

            return JsonConsole(look)
        from engine.config import terminal

        if session.quiet or not terminal(session.config, is_tty=sys.stderr.isatty()).live:
            return Console(look)
        from engine.cli.live import LiveConsole
        from engine.flow.lint import graph_of

        return LiveConsole(look, graph_of(self._flow))


def _sink(session: Session, *, stderr: bool) -> "Sink":
    from engine.cli.console import Sink

    return Sink(sys.stderr if stderr else sys.stdout, color=session.color(stderr=stderr))


def run(flow: "type[FlowSpec]", wanted: Mapping[str, Any], session: Session) -> int:
    """Run `flow`, show it, and return the exit code.

    Args:
        flow: the flow's class.
        wanted: the fields of RunOptions, which is not imported before the fork.
        session: settings and what to show.

    Raises:
        EngineError: it could not be run; what a step raised is told, not raised.
    """
    zygote = _fork(flow, wanted, session)  # before asyncio is there, which tasks do not need
    import asyncio

    from engine.runtime import Engine, RunOptions

    options = RunOptions(**wanted)
    display = Display(flow, session)
    signals: list[int] = []
    notes: list[str] = []

    async def work() -> "FinishedRun | None":
        _cancel_on_signals(signals, display, is_detached=options.detach)
        done = None
        try:
            async with Engine(session.config) as engine:
                done = await engine.execute(flow, options, observers=(display,), zygote=zygote)
        except asyncio.CancelledError as cancelled:
            if not signals:  # nobody but us cancels; the answer is the exit code
                raise
            notes.extend(getattr(cancelled, "__notes__", ()))
        return done

    try:
        done = asyncio.run(work())
    finally:
        display.close()
        _let_go(was_told=bool(signals))
    if done is not None:
        code = exit_code_of(done)
    else:
        code = EXIT_INTERRUPTED if signals[0] == signal.SIGINT else EXIT_TERMINATED
    display.end(code)
    for note in notes:
        display.say(note)
    return code


def _cancel_on_signals(received: list[int], display: Display, *, is_detached: bool) -> None:
    """Let the first signal end the tasks and the run, and a second one stop waiting for them.

    These are not the loop's own handlers, which are gone once it closes: a late signal, of which a
    user in a hurry sends many, must not end the process with another exit code.
    """
    import asyncio

    from engine.scheduler.progress import DETACHED

    loop, main = asyncio.get_running_loop(), asyncio.current_task()

    def react(number: int) -> None:
        first = _LEAVING if is_detached else _AGAIN
        display.say(first if len(received) == 1 else _AT_ONCE)
        if main is not None:
            main.cancel(f"{DETACHED if is_detached else ''}by {signal.Signals(number).name}")

    def on_signal(number: int, _frame: object) -> None:
        received.append(number)
        if not loop.is_closed():
            loop.call_soon_threadsafe(react, number)

    for number in _ENDING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, on_signal)


def _let_go(*, was_told: bool) -> None:
    """Take our handlers off; a process that was told to end, and does, hears nothing more.

    Ignored, not handled: as it ends, Python gives every signal that has a handler its default back,
    which is to kill the process.
    """
    for number in _ENDING:
        if was_told:
            signal.signal(number, signal.SIG_IGN)
        elif signal.getsignal(number) != signal.SIG_IGN:
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)


def _fork(flow: "type[FlowSpec]", wanted: Mapping[str, Any], session: Session) -> "Zygote | None":
    """Fork the run's server while this process is small and has one thread.

    None leaves it to the runtime, which starts one in an interpreter of its own: where that is
    asked for, where the user's module has started threads as it was imported, and where an object
    store was read to find the run to resume, for its client has threads, too.
    """
    import threading

    has_threads = threading.active_count() > 1 or not _CLIENTS.isdisjoint(sys.modules)
    if (wanted["isolation"] or session.config.isolation) != "fork" or has_threads:
        return None
    from engine.executors.zygote import fork_zygote

    def load() -> "Target":
        gc.set_threshold(*GC_DEFAULT)  # tasks collect as any program does
        from engine.worker.main import program_of, task_target

        return task_target(program_of(flow, wanted["decorators"]))

    def warm_up() -> None:
        from engine.worker import warmup

        warmup.warm_up()

    return fork_zygote(load, warm_up)


def exit_code_of(done: "FinishedRun") -> int:
    """The exit code of a run that has ended."""
    from engine.cli.report import exit_code_of as code_of_error

    if done.status == "succeeded":
        return 0
    return code_of_error(done.failure.code) if done.failure else EXIT_RUN_FAILED
