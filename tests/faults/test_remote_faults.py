"""R-06 for whole runs. A sample of python -m tests.faults.remote_faults"""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.testing.fault_proxy import Faults
from engine.testing.servers import ServerAddress
from tests.faults.crashes import Digests
from tests.faults.remote_faults import BrownOut, Outcome, trial, undisturbed

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def least(
    tmp_path_factory: pytest.TempPathFactory, seaweedfs: ServerAddress
) -> tuple[Digests, int]:
    return undisturbed(tmp_path_factory.mktemp("undisturbed") / "here", seaweedfs)


def _record(record: Record, outcome: Outcome) -> None:
    record("runs in S3 behind faults", 1)
    record("requests of them", outcome.requests)
    record("faults of them", outcome.faults)


def test_r06_a_run_at_ten_percent_of_faults_succeeds_with_few_more_requests(
    tmp_path: Path, seaweedfs: ServerAddress, least: tuple[Digests, int], record_property: Record
) -> None:
    digests, requests = least
    outcome = trial(tmp_path / "trial", seaweedfs, Faults(0.1, seed=5), digests)
    _record(record_property, outcome)
    assert (outcome.code, outcome.problems) == (0, [])
    assert outcome.faults > 0
    assert outcome.requests <= 1.3 * requests


def test_r06_a_run_at_a_hundred_percent_of_faults_names_the_key_and_is_completed_later(
    tmp_path: Path, seaweedfs: ServerAddress, least: tuple[Digests, int], record_property: Record
) -> None:
    faults = Faults(1.0, ("500:InternalError", "503:SlowDown", "reset", "truncated"), seed=5)
    outcome = trial(tmp_path / "trial", seaweedfs, faults, least[0], deadline_s=1)
    _record(record_property, outcome)
    assert (outcome.code, outcome.problems) == (6, [])


def test_r06_a_run_outlasts_a_brown_out(
    tmp_path: Path, seaweedfs: ServerAddress, least: tuple[Digests, int], record_property: Record
) -> None:
    out = BrownOut(0.0, seed=5, lasts_s=1.5)
    outcome = trial(tmp_path / "trial", seaweedfs, out, least[0])
    _record(record_property, outcome)
    assert (outcome.code, outcome.problems) == (0, [])
    assert outcome.faults > 0
