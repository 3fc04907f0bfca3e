"""Journals of seeds that are worth keeping, beside the commands that they lead to.

A journal says what the machine was told, and with which graph and settings, so it alone replays it.
`<name>.journal` is a file of frames as a run leaves it; `<name>.commands` has a line for each event
and, indented, one for each command that it led to.
"""

from collections.abc import Iterator
from pathlib import Path

from msgspec import convert

from engine.flow.graph import Graph
from engine.scheduler.commands import Command, Launch
from engine.scheduler.events import Event, RunStarted, TaskFailed, TaskSucceeded
from engine.scheduler.journal import RunBeganRecord, decode, events
from engine.scheduler.machine import OnFailure, Scheduler
from engine.stores.frames import FrameWriter
from engine.stores.journals import JOURNAL_MAGIC, JournalReader
from tests.sim.oracle import Journal

FOLDER = Path(__file__).parents[1] / "replay" / "journals"


def keep(name: str, journal: Journal, folder: Path = FOLDER) -> Path | None:
    """Write a journal and its commands; None if nothing is in it."""
    payloads = [payload for _, payload in journal.scan()]
    if not payloads:
        return None
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.journal"
    path.unlink(missing_ok=True)
    with FrameWriter(str(path), JOURNAL_MAGIC) as writer:
        for payload in payloads:
            writer.append(payload)
    try:
        lines = list(replay(path))
    except Exception as error:  # noqa: BLE001 - a bug of the machine is worth keeping, too
        lines = [f"replay raised {type(error).__name__}: {error}"]
    path.with_suffix(".commands").write_text("\n".join(lines) + "\n")
    return path


def replay(path: Path) -> Iterator[str]:
    """Tell a fresh machine what a journal says; yield its events and its commands as lines."""
    reader = JournalReader(str(path))
    try:
        began = decode(next(reader.scan())[1])
        if not isinstance(began, RunBeganRecord):
            raise ValueError(f"{path} does not begin with a run")
        graph = convert(began.graph, Graph)
        on_failure: OnFailure = "cancel" if began.on_failure == "cancel" else "finish"
        machine = Scheduler(graph, slots=began.slots, on_failure=on_failure)
        for event in events(reader.scan()):
            yield _event_line(event)
            yield from (f"    {_command_line(command)}" for command in machine.handle(event))
        machine.check()
    finally:
        reader.close()


def _event_line(event: Event) -> str:
    match event:
        case RunStarted():
            return "RunStarted"
        case TaskSucceeded(task, attempt, transition):
            width = "" if transition.fanout is None else f" x {transition.fanout}"
            return f"TaskSucceeded {task}#{attempt} -> {', '.join(transition.targets)}{width}"
        case TaskFailed(task, attempt, _, retryable):
            return f"TaskFailed {task}#{attempt}{'' if retryable else ' for good'}"
    return f"{type(event).__name__} {event}"


def _command_line(command: Command) -> str:
    if isinstance(command, Launch):
        inputs = ", ".join(map(str, command.inputs))
        fallback = " to catch" if command.fallback is not None else ""
        scope = f" inside {list(command.scope)}" if command.scope else ""
        return f"Launch {command.task}#{command.attempt} of [{inputs}]{scope}{fallback}"
    return str(command)
