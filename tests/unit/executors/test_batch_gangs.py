"""What is known of a gang's nodes in AWS Batch: of each by itself, for one may die alone."""

from engine.executors.base import GangPlace, Job
from engine.executors.batch_fleet import Fleet
from engine.executors.batch_requests import Needs, Submission
from engine.executors.batch_states import FAILED, RUNNING, SUCCEEDED, Seen

NAMES = ["a-0", "a-1", "a-2"]


def flying() -> Fleet:
    fleet = Fleet()
    fleet.add(Job(name, b"", gang=GangPlace("a-0", i, 3)) for i, name in enumerate(NAMES))
    fleet.accept(Submission("p", NAMES, Needs("q", "image"), is_gang=True), "job", 0.0)
    return fleet


def test_each_node_that_has_not_ended_is_asked_for() -> None:
    fleet = flying()
    assert fleet.to_ask() == ["job#0", "job#1", "job#2"]
    fleet.remove("a-1")
    assert fleet.to_ask() == ["job#0", "job#2"]
    assert fleet.flights["a-2"].job_id == "job#2"


def test_a_container_that_has_ended_has_though_the_job_runs_on() -> None:
    fleet = flying()
    found = fleet.observe(
        [
            Seen("job#0", RUNNING, started_us=7),
            Seen("job#1", RUNNING, started_us=7, exit_code=137),
            Seen("job#2", RUNNING, started_us=7, exit_code=0),
        ]
    )
    assert found.ended == ["a-1", "a-2"]
    assert found.running == [("a-0", 7)]
    states = [fleet.flights[name].seen for name in NAMES]
    assert [seen and seen.state for seen in states] == [RUNNING, FAILED, SUCCEEDED]


def test_nodes_that_batch_forgets_are_gone() -> None:
    fleet = flying()
    gone: list[str] = []
    for at_s in (10.0, 20.0, 30.0):
        gone = fleet.miss(fleet.to_ask(), [], at_s)
    assert sorted(gone) == NAMES
