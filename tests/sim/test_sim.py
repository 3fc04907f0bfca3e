"""Thousands of stories in virtual time; `python -m tests.sim.run` plays more."""

import pytest

from engine.flow.graph import Transition
from engine.ids import TaskKey
from engine.scheduler.journal import RunBeganRecord, RunDoneRecord, SucceededRecord, encode
from engine.stores.manifest import Manifest
from engine.testing.fakes import MemoryJournal, int_entry
from tests.sim import run
from tests.sim.oracle import ViolationError, commits_of, judge_journal, judge_resume, judge_values
from tests.sim.simulation import Story, simulate
from tests.sim.world import FATES
from tests.unit.scheduler.flows import flow

SEEDS = 150
START, END = TaskKey("start"), TaskKey("end")


@pytest.fixture(scope="module")
def stories() -> list[Story]:
    return [simulate(seed) for seed in range(SEEDS)]


def test_the_guarantee_holds_in_every_story(stories: list[Story]) -> None:
    assert [story.seed for story in stories] == list(range(SEEDS))
    assert all(story.tasks for story in stories)


def test_the_stories_have_everything_in_them(stories: list[Story]) -> None:
    seen = set().union(*(story.seen for story in stories))
    endings = {"succeeded", "failed", "cancelled", "cancelled twice", "executor lost", "killed"}
    assert seen >= endings | set(FATES) | {"does well"}


def test_a_seed_tells_the_same_story_every_time(stories: list[Story]) -> None:
    for story in stories[:30]:
        assert simulate(story.seed).digest == story.digest
    assert len({story.digest for story in stories}) == len(stories)


# -- the judge itself ----------------------------------------------------------------------------


def commit(task: TaskKey, *targets: str, reused: bool = False) -> SucceededRecord:
    artifacts = {"value": int_entry(0)}
    manifest = Manifest("Flow", "r", task.step, task.task_id, 0, artifacts, Transition(targets))
    return SucceededRecord(1, task, 0, 1, 2, manifest.pack(), reused)


def journal_of(*records: object) -> MemoryJournal:
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
    records: tuple[object, ...], claim: str
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


# -- the command ---------------------------------------------------------------------------------


def test_the_command_plays_seeds_and_traces_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--seeds", "2", "--start", "7", "--trace"]) == 0
    printed = capsys.readouterr().out
    assert "seed 7 " in printed
    assert "RunDone(status='succeeded'" in printed
    assert "2 seeds, 0 failed" in printed


def test_a_seed_that_fails_prints_the_line_that_replays_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(seed: int) -> Story:
        raise ViolationError("start/0 was committed twice")

    monkeypatch.setattr(run, "simulate", breaks)
    assert run.main(["--seeds", "1", "--start", "42"]) == 1
    printed = capsys.readouterr().out
    assert "start/0 was committed twice" in printed
    assert "replay: python -m tests.sim.run --seeds 1 --start 42" in printed
