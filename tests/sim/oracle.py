"""What must hold after a run in any world, said in the words of the guarantee."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from engine.flow.graph import FANS_OUT, Graph, Kind
from engine.ids import Frame, TaskKey
from engine.scheduler.commands import FinishRun, Launch
from engine.scheduler.gangs import tasks_of
from engine.scheduler.journal import (
    FailedRecord,
    Record,
    RunBeganRecord,
    RunDoneRecord,
    SucceededRecord,
    decode,
    events,
)
from engine.scheduler.machine import Scheduler
from engine.scheduler.progress import RunDone, RunEvent, TaskAttemptFailed, TaskDone
from engine.stores.manifest import Manifest, outline
from tests.sim.world import caught_value, value_in, value_of, width_of


class Journal(Protocol):
    def scan(self, start: int = 0) -> Iterator[tuple[int, bytes]]: ...


class ViolationError(AssertionError):
    """The guarantee was broken."""


def demand(holds: bool, claim: str) -> None:
    if not holds:
        raise ViolationError(claim)


def records_of(journal: Journal) -> list[Record]:
    return [decode(payload) for _, payload in journal.scan()]


def commits_of(journal: Journal) -> dict[TaskKey, SucceededRecord]:
    """Commits by task; at most one each."""
    found: dict[TaskKey, SucceededRecord] = {}
    for record in records_of(journal):
        if isinstance(record, SucceededRecord):
            demand(record.task not in found, f"{record.task} was committed twice")
            head = outline(record.manifest)
            demand(
                f"{head.step}/{head.task_id}" == str(record.task),
                f"{record.task} was committed with the manifest of {head.step}/{head.task_id}",
            )
            found[record.task] = record
    return found


def judge_journal(journal: Journal, *, is_whole: bool) -> None:
    """A journal begins with the run and, unless it was cut off, ends with its one end."""
    records = records_of(journal)
    commits_of(journal)
    for at, record in enumerate(records):
        demand(isinstance(record, RunBeganRecord) is (at == 0), "a run began in the middle")
        is_last = at == len(records) - 1
        demand(is_last or not isinstance(record, RunDoneRecord), "a run went on after its end")
        if isinstance(record, SucceededRecord | FailedRecord):
            demand(record.started_us <= record.ended_us, f"{record.task} ended before it began")
    times = [record.at_us for record in records]
    demand(times == sorted(times), "a run's time went back")
    if is_whole:
        demand(bool(records) and isinstance(records[-1], RunDoneRecord), "a run has no end")


def parallel_steps(journal: Journal) -> set[str]:
    """The steps of a journal's flow that gangs run."""
    for record in records_of(journal):
        if isinstance(record, RunBeganRecord):
            nodes = record.graph.get("nodes", {})
            return {name for name, node in nodes.items() if node["is_parallel"]}
    return set()


def whole(
    commits: Mapping[TaskKey, SucceededRecord], parallel: Collection[str]
) -> dict[TaskKey, SucceededRecord]:
    """Commits without those of gangs that a killed driver has written a part of."""
    sizes = Counter(_gang_of(key) for key in commits if key.step in parallel)
    return {
        key: record
        for key, record in commits.items()
        if key.step not in parallel or sizes[_gang_of(key)] == key.frames[-1].total
    }


def _gang_of(key: TaskKey) -> tuple[str, tuple[Frame, ...], int]:
    return key.step, key.frames[:-1], key.frames[-1].total


def judge_gangs(journal: Journal, *, is_whole: bool) -> None:
    """A gang's tasks commit the same attempt; and all of them, unless the journal was cut off."""
    commits, parallel = commits_of(journal), parallel_steps(journal)
    if is_whole:
        demand(len(whole(commits, parallel)) == len(commits), "a part of a gang has committed")
    attempts: dict[object, set[int]] = {}
    for key, record in commits.items():
        if key.step in parallel:
            made_in = outline(record.manifest).attempt
            attempts.setdefault(_gang_of(key), set()).add(made_in)
    demand(all(len(one) == 1 for one in attempts.values()), "a gang mixes its attempts")


def judge_cause(
    twin: Scheduler, started: Sequence[str], told: Sequence[RunEvent], journal: Journal
) -> FinishRun | None:
    """Whatever was started or told follows from what is in the journal.

    `twin` is a fresh machine: it is told what the journal says. Returns how it ended the run.
    """
    due: set[str] = set()
    finish: FinishRun | None = None
    for event in events(journal.scan()):
        for command in twin.handle(event):
            if isinstance(command, Launch):
                for task in tasks_of(command):
                    due.add(f"{task.step}-{task.task_id}-{command.attempt}")
            elif isinstance(command, FinishRun):
                finish = command
    for name in started:
        job = name.split("-", 1)[1]
        demand(job in due, f"{job} was started, and the journal does not say why")
    written = records_of(journal)
    ends = {
        (type(r), r.task, r.attempt)
        for r in written
        if isinstance(r, SucceededRecord | FailedRecord)
    }
    for news in told:
        if isinstance(news, TaskDone | TaskAttemptFailed):
            kind = SucceededRecord if isinstance(news, TaskDone) else FailedRecord
            is_there = (kind, news.task, news.attempt) in ends
            demand(is_there, f"watchers heard the end of {news.task}, which is not in the journal")
    return finish


def judge_end(finish: FinishRun | None, end: RunDone) -> None:
    """The end that was told is the one that follows from the journal."""
    if finish is None:
        raise ViolationError("a run ended, and its journal does not say why")
    is_same = (finish.ok, finish.reason) == (end.status == "succeeded", end.reason)
    demand(is_same, f"a run ended with {end.reason}; its journal, with {finish.reason}")


def judge_resume(origins: Iterable[Journal], started: Iterable[str], resumed: Journal) -> None:
    """Nothing that was committed before, by any run, ran again, and what was reused is the same."""
    before: dict[TaskKey, SucceededRecord] = {}
    for origin in origins:
        before = whole(commits_of(origin), parallel_steps(origin)) | before
    after = commits_of(resumed)
    names = {f"{key.step}-{key.task_id}" for key in before}
    for name in started:
        place = name.split("-", 1)[1].rsplit("-", 1)[0]
        demand(place not in names, f"{place} had been committed, and ran again")
    for key, record in after.items():
        demand(record.reused is (key in before), f"{key} is not marked right as reused")
        if key in before:
            demand(record.manifest == before[key].manifest, f"{key} has changed in reuse")


def judge_values(
    graph: Graph, seed: int, journal: Journal, blobs: Mapping[str, bytes] | None = None
) -> None:
    """Every value is the one that a run without faults would have made, and its blob is there."""
    commits = {key: Manifest.unpack(r.manifest) for key, r in commits_of(journal).items()}
    expected: dict[TaskKey, str] = {}

    def walk(key: TaskKey, items: list[int], inputs: list[TaskKey]) -> TaskKey:
        demand(key in commits, f"{key} is missing")
        values = [expected[parent] for parent in inputs]
        is_caught = commits[key].caught
        expected[key] = caught_value(key) if is_caught else value_of(key.step, items, values)
        node = graph[key.step]
        if node.kind is Kind.END:
            return key
        if node.kind is Kind.LINEAR:
            if graph[node.next[0]].is_join:
                return key
            return walk(TaskKey(node.next[0], key.frames), items, [key])
        is_foreach = node.kind in FANS_OUT
        targets = node.next * width_of(seed, key) if is_foreach else node.next
        back = []
        for index, target in enumerate(targets):
            frame = Frame(key.step, index, len(targets), 0, is_foreach)
            inner = [*items, index] if is_foreach else items
            back.append(walk(TaskKey(target, (*key.frames, frame)), inner, [key]))
        (join,) = (n.name for n in graph.nodes.values() if n.join_of == key.step)
        return walk(TaskKey(join, key.frames), items, back)

    walk(TaskKey("start"), [], [])
    demand(set(commits) == set(expected), "tasks were committed that the flow does not have")
    for key, value in expected.items():
        digest = commits[key].artifacts["value"].digest
        demand(digest is None or digest in (blobs or {}), f"the blob of {key} is missing")
        demand(value_in(commits[key], blobs or {}) == value, f"{key} has a wrong value")


def judge_told(told: Sequence[RunEvent], end: RunDone) -> None:
    """Watchers hear of one end, last."""
    ends = Counter(isinstance(event, RunDone) for event in told)[True]
    demand(ends == 1 and told[-1] is end, f"watchers were told of {ends} ends")
