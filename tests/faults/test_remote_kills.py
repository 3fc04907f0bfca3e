"""R-01 and R-02 in S3. A sample of python -m tests.faults.remote_kills [--points]."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from engine.crashpoints import REMOTE_POINTS
from engine.testing.servers import ServerAddress
from tests.faults.crashes import Undisturbed
from tests.faults.remote_kills import campaign, crashed_at, trial
from tests.faults.remote_site import RemoteSite, url_of

KILLS = 1


def test_r01_a_run_in_s3_killed_at_any_instant_goes_on_from_this_machine_and_another(
    tmp_path: Path, seaweedfs: ServerAddress, record_property: Callable[[str, object], None]
) -> None:
    total = campaign(tmp_path, seaweedfs.variables, KILLS, seed=3)
    record_property("kills, in S3", total.kills)
    assert total.problems == []
    assert total.kills >= KILLS


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, seaweedfs: ServerAddress) -> Undisturbed:
    place = tmp_path_factory.mktemp("undisturbed")
    return Undisturbed.run(RemoteSite(place / "here", url_of(place), seaweedfs.variables))


@pytest.mark.parametrize("point", REMOTE_POINTS)
def test_r02_a_run_that_crashes_as_it_commits_in_s3_goes_on_where_it_was(
    tmp_path: Path,
    seaweedfs: ServerAddress,
    undisturbed: Undisturbed,
    point: str,
    record_property: Callable[[str, object], None],
) -> None:
    done = trial(
        tmp_path / "trial", seaweedfs.variables, partial(crashed_at, point, 2), undisturbed.digests
    )
    assert done.problems == []
    assert done.kills == 1, "the point was not passed so often"
    record_property("crash points of S3", 1)
