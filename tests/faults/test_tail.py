"""`aflow logs -f` of tasks in AWS Batch, on another machine: see tail_campaign, which has more."""

import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from engine.testing.servers import ServerAddress
from tests.faults.tail_campaign import Talk, campaign


def test_a_tail_of_many_tasks_loses_nothing_asks_rarely_and_leaves_the_run_alone(
    tmp_path: Path,
    seaweedfs: ServerAddress,
    s3_url: str,
    record_property: Callable[[str, object], None],
) -> None:
    with patch.dict(os.environ):  # what the campaign sets goes with the test
        tail = campaign(tmp_path, Talk(tasks=30, seconds=5.0, every_s=0.5), seaweedfs, s3_url)
    assert not tail.problems
    # A pull a second at most, of a list and of what is new: whatever the number of tasks.
    assert tail.requests <= 10 + 8 * tail.took_s
    record_property("lines followed", tail.written)
    record_property("requests of the reader", tail.requests)
