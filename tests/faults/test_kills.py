"""R-01: a driver killed at any instant. A sample of python -m tests.faults.kill_campaign."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.kill_campaign import campaign

KILLS = 3


@pytest.mark.parametrize("seed", [1, 2])
def test_r01_a_run_killed_at_any_instant_and_resumed_at_once_loses_and_repeats_nothing(
    tmp_path: Path, seed: int, record_property: Callable[[str, object], None]
) -> None:
    total = campaign(tmp_path, KILLS, seed)
    record_property("kills", total.kills)
    assert total.problems == []
    assert total.kills >= KILLS
