"""What must hold after a run in any world, said in the words of the guarantee."""

from collections.abc import Iterable

from engine.flow.graph import Graph, Kind
from engine.ids import Frame, TaskKey
from engine.scheduler.journal import Record, RunBeganRecord, RunDoneRecord, SucceededRecord, decode
from engine.stores.manifest import Manifest, outline
from engine.testing.fakes import MemoryJournal
from tests.sim.world import caught_value, value_in, value_of, width_of


class ViolationError(AssertionError):
    """The guarantee was broken."""


def demand(holds: bool, claim: str) -> None:
    if not holds:
        raise ViolationError(claim)


def records_of(journal: MemoryJournal) -> list[Record]:
    return [decode(payload) for _, payload in journal.scan()]


def commits_of(journal: MemoryJournal) -> dict[TaskKey, SucceededRecord]:
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


def judge_journal(journal: MemoryJournal, *, is_whole: bool) -> None:
    """A journal begins with the run and, unless it was cut off, ends with its one end."""
    records = records_of(journal)
    commits_of(journal)
    for at, record in enumerate(records):
        demand(isinstance(record, RunBeganRecord) is (at == 0), "a run began in the middle")
        is_last = at == len(records) - 1
        demand(is_last or not isinstance(record, RunDoneRecord), "a run went on after its end")
    if is_whole:
        demand(bool(records) and isinstance(records[-1], RunDoneRecord), "a run has no end")


def judge_resume(
    origins: Iterable[MemoryJournal], started: Iterable[str], resumed: MemoryJournal
) -> None:
    """Nothing that was committed before, by any run, ran again, and what was reused is the same."""
    before: dict[TaskKey, SucceededRecord] = {}
    for origin in origins:
        before = commits_of(origin) | before
    after = commits_of(resumed)
    names = {f"{key.step}-{key.task_id}" for key in before}
    for name in started:
        place = name.split("-", 1)[1].rsplit("-", 1)[0]
        demand(place not in names, f"{place} had been committed, and ran again")
    for key, record in after.items():
        demand(record.reused is (key in before), f"{key} is not marked right as reused")
        if key in before:
            demand(record.manifest == before[key].manifest, f"{key} has changed in reuse")


def judge_values(graph: Graph, seed: int, journal: MemoryJournal) -> None:
    """Every value is the one that a run without faults would have made."""
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
        is_foreach = node.kind is Kind.FOREACH
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
        demand(value_in(commits[key]) == value, f"{key} has a wrong value")
