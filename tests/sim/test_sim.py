"""R-23: stories in virtual time, from seeds; `python -m tests.sim.run` plays more."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.flow.graph import Transition
from engine.ids import TaskKey
from engine.scheduler.events import ResultRef
from engine.scheduler.journal import Record, RunBeganRecord, RunDoneRecord, SucceededRecord, encode
from engine.scheduler.machine import Scheduler
from engine.scheduler.progress import RunDone, TaskDone
from engine.stores.manifest import Entry, Manifest
from engine.testing.fakes import MemoryJournal, int_entry
from tests.sim import kept, run
from tests.sim.faults import FATES
from tests.sim.mutants import MUTANTS, planted
from tests.sim.oracle import (
    ViolationError,
    commits_of,
    judge_cause,
    judge_end,
    judge_journal,
    judge_resume,
    judge_told,
    judge_values,
)
from tests.sim.simulation import Story, simulate
from tests.unit.scheduler.flows import flow

SEEDS = 150
START, END = TaskKey("start"), TaskKey("end")
ROOT = Path(__file__).parents[2]

Note = Callable[[str, object], None]


@pytest.fixture(scope="module")
def stories() -> list[Story]:
    return [simulate(seed) for seed in range(SEEDS)]


def test_r23_the_guarantee_holds_in_every_story(
    stories: list[Story], record_property: Note
) -> None:
    assert [story.seed for story in stories] == list(range(SEEDS))
    assert all(story.tasks for story in stories)
    record_property("seeds", len(stories))


def test_r23_the_stories_have_everything_in_them(stories: list[Story]) -> None:
    seen = sum((story.seen for story in stories), Counter[str]())
    endings = {"succeeded", "failed", "cancelled", "cancelled twice", "executor lost", "killed"}
    raised = {f"raised {name}" for name in ("StoreError", "StoreUnavailableError", "ObserverError")}
    kills = {"kill at turn", "kill at append", "cancel at s", "cancel at turns"}
    stores = {"blobs", "disk full", "metadata down", "log full at", "lease lost at", "on disk"}
    others = {"does well", "rival", "clock jumps", "submits taken", "observer raises at"}
    assert {*seen} >= endings | raised | kills | stores | others | {*FATES}


def test_r23_a_seed_tells_the_same_story_every_time(stories: list[Story]) -> None:
    for story in stories[:20]:
        assert simulate(story.seed).digest == story.digest
    assert len({story.digest for story in stories}) == len(stories)


def test_r23_a_seed_tells_the_same_story_in_every_process(stories: list[Story]) -> None:
    script = (
        "from tests.sim.simulation import simulate\nfor s in range(5): print(simulate(s).digest)"
    )
    for hash_seed in ("0", "77"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.split() == [story.digest for story in stories[:5]]


# -- the judge itself ----------------------------------------------------------------------------


def commit(task: TaskKey, *targets: str, reused: bool = False) -> SucceededRecord:
    artifacts = {"value": int_entry(0)}
    manifest = Manifest("Flow", "r", task.step, task.task_id, 0, artifacts, Transition(targets))
    return SucceededRecord(1, task, 0, 1, 2, manifest.pack(), reused)


def journal_of(*records: Record) -> MemoryJournal:
    journal = MemoryJournal()
    for record in records:
        journal.append(encode(record))
    return journal


BEGAN = RunBeganRecord(1, "Flow", "r", b"")
DONE = RunDoneRecord(9, "succeeded")


def test_the_judge_sees_a_task_committed_twice() -> None:
    with pytest.raises(ViolationError, match="start/0 was committed twice"):
        judge_journal(journal_of(BEGAN, commit(START), commit(START), DONE), is_whole=True)


def test_the_judge_sees_the_manifest_of_another_task() -> None:
    other = SucceededRecord(1, END, 0, 1, 2, commit(START).manifest)
    with pytest.raises(ViolationError, match="end/0 was committed with the manifest of start/0"):
        commits_of(journal_of(BEGAN, other))


@pytest.mark.parametrize(
    ("records", "claim"),
    [
        ((BEGAN, commit(START)), "a run has no end"),
        ((), "a run has no end"),
        ((BEGAN, DONE, commit(START)), "went on after its end"),
        ((commit(START), DONE), "began in the middle"),
        ((BEGAN, BEGAN, DONE), "began in the middle"),
    ],
)
def test_the_judge_sees_a_journal_that_is_not_a_run(
    records: tuple[Record, ...], claim: str
) -> None:
    with pytest.raises(ViolationError, match=claim):
        judge_journal(journal_of(*records), is_whole=True)


def test_a_journal_that_was_cut_off_needs_no_end() -> None:
    judge_journal(journal_of(BEGAN, commit(START)), is_whole=False)


def test_the_judge_sees_committed_work_done_again() -> None:
    origin = journal_of(BEGAN, commit(START))
    with pytest.raises(ViolationError, match="start-0 had been committed, and ran again"):
        judge_resume([origin], ["r1-start-0-0"], journal_of(BEGAN))
    with pytest.raises(ViolationError, match="start/0 is not marked right as reused"):
        judge_resume([origin], [], journal_of(BEGAN, commit(START)))
    with pytest.raises(ViolationError, match="start/0 has changed in reuse"):
        judge_resume([origin], [], journal_of(BEGAN, commit(START, "work", reused=True)))


def test_the_judge_sees_a_task_that_is_missing_or_has_a_wrong_value() -> None:
    with pytest.raises(ViolationError, match="end/0 is missing"):
        judge_values(flow(), 0, journal_of(BEGAN, commit(START, "end"), DONE))
    with pytest.raises(ViolationError, match="start/0 has a wrong value"):
        judge_values(flow(), 0, journal_of(BEGAN, commit(START, "end"), commit(END), DONE))


def test_the_judge_sees_a_blob_that_is_missing() -> None:
    entry = Entry("json", "str", 1, "", digest="0" * 64)
    manifest = Manifest("Flow", "r", "start", "0", 0, {"value": entry}, Transition(("end",)))
    record = SucceededRecord(1, START, 0, 1, 2, manifest.pack())
    with pytest.raises(ViolationError, match="the blob of start/0 is missing"):
        judge_values(flow(), 0, journal_of(BEGAN, record, commit(END), DONE))


def test_the_judge_sees_time_go_back() -> None:
    late = RunBeganRecord(2, "Flow", "r", b"")
    with pytest.raises(ViolationError, match="time went back"):
        judge_journal(journal_of(late, commit(START)), is_whole=False)
    backward = SucceededRecord(3, START, 0, 2, 1, commit(START).manifest)
    with pytest.raises(ViolationError, match="start/0 ended before it began"):
        judge_journal(journal_of(BEGAN, backward), is_whole=False)


def test_the_judge_sees_what_the_journal_gives_no_cause_for() -> None:
    def machine() -> Scheduler:
        return Scheduler(flow(), slots=1)

    began = journal_of(BEGAN)
    with pytest.raises(ViolationError, match="end-0-0 was started, and the journal does not say"):
        judge_cause(machine(), ["r-start-0-0", "r-end-0-0"], [], began)
    told = TaskDone(START, 0, 1, 2, Transition(("end",)), ResultRef(4), 100)
    with pytest.raises(ViolationError, match="heard the end of start/0, which is not in"):
        judge_cause(machine(), [], [told], began)
    with pytest.raises(ViolationError, match="its journal does not say why"):
        judge_end(judge_cause(machine(), [], [], began), RunDone("succeeded", 9))
    whole = journal_of(BEGAN, commit(START, "end"), commit(END))
    with pytest.raises(ViolationError, match="ended with by hand"):
        judge_end(judge_cause(machine(), [], [], whole), RunDone("interrupted", 9, "by hand"))


def test_the_judge_sees_an_end_that_is_told_twice() -> None:
    end = RunDone("succeeded", 9)
    with pytest.raises(ViolationError, match="told of 2 ends"):
        judge_told([end, end], end)


# -- the command ---------------------------------------------------------------------------------


def test_the_command_plays_seeds_and_traces_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = ["--seeds", "2", "--start", "7", "--trace", "--keep", str(tmp_path)]
    assert run.main(asked) == 0
    printed = capsys.readouterr().out
    assert "seed 7 " in printed
    assert "RunDone(status='succeeded'" in printed
    assert "2 seeds, 0 failed" in printed
    assert not list(tmp_path.iterdir())


def test_r23_a_seed_that_fails_leaves_its_journals_which_replay_to_the_same_commands(
    tmp_path: Path,
) -> None:
    with planted(MUTANTS[0]) as cast:
        played = run.play(range(1), keeps_in=tmp_path, cast=cast)
    assert "ViolationError" in played.failed[0]
    assert run.replay_line(0) == "python -m tests.sim.run --seeds 1 --start 0 --trace"
    journals = sorted(tmp_path.glob("seed-0-*.journal"))
    assert journals
    for journal in journals:
        told = journal.with_suffix(".commands").read_text().splitlines()
        assert list(kept.replay(journal)) == told
        assert told[0] == "RunStarted"
