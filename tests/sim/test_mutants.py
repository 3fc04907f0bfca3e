"""The simulation is sharp: it finds bugs that are planted in the driver.

`python -m tests.sim.mutants` plays all of them, with up to 1,000 seeds each; here are those that a
few seconds suffice for.
"""

from collections.abc import Callable

import pytest

from tests.sim.mutants import MUTANTS, Mutant, find, planted, problem

SEEDS = range(40)
RARE = {  # what it takes to show these comes in one of 40 to 300 seeds
    "watchers hear of a failure before the journal",
    "the late end of an older attempt is committed",
    "the result of another task is committed",
    "a job that cannot be made is forgotten",
    "a run without a beginning gets an end",
    "a manifest that cannot be read ends the run",
    "a submit that is refused is not missed",
    "a part of a gang is reused",
    "a cancel reaches one task alone",
    "the inputs of one join are given to another",
    "the jobs of a broken run go on",
    "news that came together with other news is lost",
}
COMMON = [bug for bug in MUTANTS if bug.fault not in RARE]


@pytest.mark.unguarded  # a driver with a bug leaves tasks behind
@pytest.mark.parametrize("bug", COMMON, ids=lambda bug: bug.fault)
def test_r23_a_planted_bug_is_found_and_its_seed_finds_it_again(
    bug: Mutant, record_property: Callable[[str, object], None]
) -> None:
    found = find(bug, SEEDS)
    assert found is not None
    assert found.is_replayed
    record_property("seeds_to_find", found.seed + 1)


@pytest.mark.parametrize("bug", MUTANTS, ids=lambda bug: bug.fault)
def test_every_bug_has_its_place_in_the_source(bug: Mutant) -> None:
    with planted(bug) as cast:
        assert cast.driver.Driver.__module__ == "engine.scheduler.driver"


def test_the_source_as_it_is_shows_nothing() -> None:
    with planted(Mutant("nothing")) as cast:
        assert [problem(seed, cast) for seed in range(5)] == [None] * 5
