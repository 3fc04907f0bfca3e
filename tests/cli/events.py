"""Events of a run of the flow of `tests.unit.client.stored`, and a console that is told them."""

import io
import json
import re

from engine.cli.console import Console, Look, Sink
from engine.errors import Failure
from engine.flow.graph import Transition
from engine.ids import TaskKey
from engine.scheduler.events import ResultRef
from engine.scheduler.progress import (
    RunBegan,
    RunDone,
    RunEvent,
    TaskAttemptFailed,
    TaskDone,
    TaskLaunched,
    TaskOutput,
)
from tests.unit.client.stored import END, FAILURE, GRAPH, JOIN, START, work

BEGAN_US = 1_785_000_000_000_000
CANCELLED = Failure(code="task-cancelled", message="cancelled: enough")


def at(seconds: float) -> int:
    return BEGAN_US + int(seconds * 1_000_000)


def began(origin: str | None = None) -> RunBegan:
    return RunBegan("Fan", "R1", at(0), origin)


def launched(key: TaskKey, attempt: int = 0, s: float = 1) -> TaskLaunched:
    return TaskLaunched(key, attempt, at(s))


def done(
    key: TaskKey,
    *targets: str,
    fanout: int | None = None,
    s: float = 2,
    took_s: float = 1,
    reused: bool = False,
    caught: bool = False,
) -> TaskDone:
    transition = Transition(targets, fanout)
    return TaskDone(
        task=key,
        attempt=0,
        started_us=at(s - took_s),
        ended_us=at(s),
        transition=transition,
        result=ResultRef(10),
        result_size=10,
        reused=reused,
        caught=caught,
    )


def failed(
    key: TaskKey, *, retry_in_s: float | None = None, s: float = 2, failure: Failure = FAILURE
) -> TaskAttemptFailed:
    return TaskAttemptFailed(key, 0, at(s - 1), at(s), failure, retry_in_s)


def printed(key: TaskKey, stream: str, *lines: str) -> TaskOutput:
    return TaskOutput(key, 0, stream, tuple((at(1), line) for line in lines))


def ended(status: str, s: float = 4, **more: object) -> RunDone:
    return RunDone(status, at(s), **more)  # type: ignore[arg-type]  # by name


WELL = [
    began(),
    launched(START),
    done(START, "work", fanout=2),
    launched(work(0, 2), s=2),
    launched(work(1, 2), s=2),
    printed(work(0, 2), "stdout", "a", "b"),
    printed(work(1, 2), "stderr", "c"),
    done(work(0, 2), "join", s=3),
    done(work(1, 2), "join", s=3, caught=True),
    launched(JOIN, s=3),
    done(JOIN, "end", s=3.5, took_s=0.5),
    launched(END, s=3.5),
    done(END, s=4, took_s=0.5),
    ended("succeeded"),
]


class Shown:
    """A console over two texts."""

    def __init__(self, kind: type[Console] = Console, **look: bool) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.console = kind(Look(Sink(self.out), Sink(self.err), **look), GRAPH)

    def tell(self, events: list[RunEvent]) -> "Shown":
        for event in events:
            self.console.observe(event)
        return self

    @property
    def said(self) -> list[str]:
        """What went to stderr, without the times."""
        return [
            re.sub(r"^[-\d]{10} [:\d]{8}\.\d{3} ", "", x) for x in self.err.getvalue().splitlines()
        ]


def lines_of(shown: Shown) -> list[dict[str, object]]:
    return [json.loads(line) for line in shown.out.getvalue().splitlines()]
