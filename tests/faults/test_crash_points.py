"""R-02: every commit boundary is a crash point, and a run crashed there goes on where it was.

A sample: the first passage of each point, and a later one. All: python -m tests.faults.crash_points
"""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.crashpoints import POINTS
from tests.faults.crash_points import trial
from tests.faults.crashes import Site, Undisturbed

SEED = 20_260_901


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed.run(Site(tmp_path_factory.mktemp("undisturbed")))


@pytest.mark.parametrize("point", POINTS)
def test_r02_a_run_that_crashes_at_a_commit_boundary_goes_on_where_it_was(
    tmp_path: Path,
    undisturbed: Undisturbed,
    point: str,
    record_property: Callable[[str, object], None],
) -> None:
    first = trial(tmp_path / "first", point, 1, undisturbed.digests)
    assert first.problems == []
    assert first.kills == 1, "the point was not passed"
    record_property("crash points", 1)


@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith(("journal.", "blob."))])
def test_r02_a_run_that_crashes_at_a_later_commit_goes_on_where_it_was(
    tmp_path: Path,
    undisturbed: Undisturbed,
    point: str,
    record_property: Callable[[str, object], None],
) -> None:
    passages = undisturbed.frames if point.startswith("journal") else undisturbed.blobs
    passage = random.Random(f"{SEED} {point}").randint(2, passages)
    later = trial(tmp_path / "later", point, passage, undisturbed.digests)
    assert later.problems == []
    assert later.kills == 1, "the point was not passed so often"
    record_property("later passages of them", 1)
