"""Shows a run while it runs: what tasks print, one line per change, and how it ended.

What tasks print on stdout goes to stdout, everything else to stderr. Lines are collected and
written together, at the latest 20 ms after they came: 1,000 tasks cost a few dozen writes. A reader
that goes away does not stop the run; the rest of its stream is dropped.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from msgspec import Struct, field
from msgspec.structs import replace

from engine.cli import times
from engine.cli.escapes import safe
from engine.cli.progress import CANCELLED, Tally
from engine.cli.report import failure_lines
from engine.cli.resume_plan import plan_lines
from engine.errors import Failure
from engine.flow.graph import Graph
from engine.ids import TaskKey
from engine.scheduler.progress import (
    DETACHED,
    ResumePlanned,
    RunBegan,
    RunDone,
    RunEvent,
    TaskAttemptFailed,
    TaskDone,
    TaskLaunched,
    TaskOutput,
)

if TYPE_CHECKING:
    import asyncio

FLUSH_AFTER_S = 0.02


class Sink(Struct):
    """Lines on their way to one stream."""

    stream: TextIO
    color: bool = False
    pending: list[str] = field(default_factory=list)
    broken: bool = False

    def flush(self) -> None:
        """Write what is pending."""
        if self.pending:
            text = "\n".join(self.pending) + "\n"
            self.pending.clear()
            self.write(text)

    def write(self, text: str) -> None:
        """Write at once; a stream whose reader has gone takes nothing more."""
        if self.broken:
            return
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:  # a pipe without a reader, a terminal that was closed
            self.broken = True
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.stream.fileno())
            os.close(devnull)


class Look(Struct):
    """What is shown and where."""

    out: Sink
    err: Sink
    quiet: bool = False
    how_to_look: bool = True


class Console:
    """An observer that writes lines. `live` subclasses add a picture that is drawn over."""

    def __init__(self, look: Look, graph: Graph | None = None) -> None:
        self.look = look
        self.tally = Tally(graph)
        self._flush_at: asyncio.TimerHandle | None = None

    def observe(self, event: RunEvent) -> None:
        """Take one event; what it says is on the screen 20 ms later."""
        self.tally.observe(event)
        match event:
            case TaskOutput():
                self._output(event)
            case RunBegan():
                if not self.look.quiet:
                    self._change(event)
                self.look.err.pending += [f"warning: {safe(text)}" for text in event.warnings]
            case RunDone():
                self.close()
                return
            case _ if not self.look.quiet:
                self._change(event)
        if self._flush_at is None and (self.look.out.pending or self.look.err.pending):
            self._flush_soon()

    def say(self, text: str) -> None:
        """Say something between the lines of the run."""
        self.look.err.pending.append(text)
        self._flush()

    def close(self) -> None:
        """Write what is pending."""
        if self._flush_at is not None:
            self._flush_at.cancel()
            self._flush_at = None
        self._flush()

    def summary(self) -> None:
        """Say how the run ended, the most important last."""
        self.close()
        if self.tally.ended is not None:
            self.look.err.pending += summary_lines(self.tally, self.look)
            self.look.err.flush()

    def _flush_soon(self) -> None:
        loop = running_loop()
        if loop is None:  # nothing would call back
            self._flush()
        else:
            self._flush_at = loop.call_later(FLUSH_AFTER_S, self._flushed_late)

    def _flushed_late(self) -> None:
        self._flush_at = None
        self._flush()

    def _flush(self) -> None:
        self.look.out.flush()
        self.look.err.flush()

    def _output(self, event: TaskOutput) -> None:
        sink = self.look.out if event.stream == "stdout" else self.look.err
        prefix = f"[{event.task.step}/{event.task.task_id}] "
        sink.pending += [prefix + safe(text, color=sink.color) for _, text in event.lines]

    def _change(self, event: RunEvent) -> None:
        """One line per change, in the words that Metaflow's users know."""
        match event:
            case TaskLaunched(task, attempt, at_us):
                again = " (retry)" if attempt else ""
                self._say(at_us, task, f"Task is starting{again}.")
            case TaskDone():
                self._say_done(event)
            case TaskAttemptFailed(task, _, _, ended_us, failure, retry_in_s):
                word = "was ended" if failure.code == CANCELLED else "failed"
                self._say(ended_us, task, f"Task {word}: {_in_short(failure)}")
                if retry_in_s is not None:
                    self._say(ended_us, task, f"Task is tried again in {retry_in_s:g} s.")
            case ResumePlanned():
                self.look.err.pending += plan_lines(event)
            case RunBegan(_, run_id, at_us, origin):
                resumed = f", resuming {origin}" if origin else ""
                self._say(at_us, None, f"Workflow starting (run-id {run_id}{resumed}):")

    def _say_done(self, event: TaskDone) -> None:
        if event.reused:
            # Its times are those of the run that did the work.
            self._say(self.tally.now_us, event.task, "Task reused.")
            return
        if event.transition.fanout is not None:
            self._say(
                event.ended_us,
                event.task,
                f"Foreach yields {event.transition.fanout:,} child steps.",
            )
        caught = " (its failure was caught)" if event.caught else ""
        self._say(event.ended_us, event.task, f"Task finished successfully{caught}.")

    def _say(self, at_us: int, task: TaskKey | None, text: str) -> None:
        where = f" [{task.step}/{task.task_id}]" if task else ""
        self.look.err.pending.append(f"{times.clock(at_us)}{where} {text}")


def running_loop() -> "asyncio.AbstractEventLoop | None":
    """The loop that tells us of events, if one does."""
    import asyncio  # whoever runs a loop has paid for it

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _in_short(failure: Failure) -> str:
    return safe(failure.summary.partition("\n")[0])


def summary_lines(tally: Tally, look: Look) -> Sequence[str]:
    """How the run ended, how much it did, how to look at it or go on; a failure comes last."""
    ended = tally.ended
    if ended is None:
        return []
    run = f"{tally.flow}/{tally.run_id}"
    counts = [f"{tally.done - tally.reused:,} tasks done"]
    counts += [f"{tally.reused:,} reused"] if tally.reused else []
    counts += [f"{tally.failed:,} failed"] if tally.failed else []
    counts += [f"{tally.cancelled:,} ended"] if tally.cancelled else []
    took = times.duration(tally.now_us - tally.began_us)
    lines: list[str] = []
    if not look.quiet:
        word = {"succeeded": "Done!", "failed": "Workflow failed."}.get(
            ended.status, "Workflow interrupted."
        )
        lines.append(f"{word} {run}: {', '.join(counts)} in {took}")
        if ended.status == "succeeded" and look.how_to_look:
            lines.append(f"  look:  aflow dump {tally.run_id}   aflow logs {tally.run_id}")
    if ended.status != "succeeded":
        lines += _why(tally, ended, run, look)
    return lines


def _why(tally: Tally, ended: RunDone, run: str, look: Look) -> list[str]:
    failure = ended.failure or (tally.failures[0][1] if tally.failures else None)
    task = ended.failed_task or (tally.failures[0][0] if tally.failures else None)
    if ended.status == "failed" and failure:
        lines = []
        more = tally.failed - 1
        if more > 0 and not look.quiet:
            lines.append(f"{more:,} more failed: aflow logs {tally.run_id} --failed")
        named = _named(failure, task)
        return [*lines, *failure_lines(named, run=run, color=look.err.color, is_told=True)]
    why = f": {safe(ended.reason)}" if ended.reason else ""
    lines = [f"{run} {ended.status}{why}"]
    if (ended.reason or "").startswith(DETACHED):  # a note says how to go on
        return lines
    return [*lines, f"resume with: aflow resume {tally.run_id}"]


def _named(failure: Failure, task: TaskKey | None) -> Failure:
    """The failure with its task in the message, unless it names it already."""
    if task is None or str(task) in failure.message:
        return failure
    return replace(failure, type="", message=f"{task}: {failure.summary}")
