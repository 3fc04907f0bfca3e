"""A small flow in S3, read and resumed from elsewhere: see s3_shows, which takes a larger one."""

from pathlib import Path

from engine.testing.servers import ServerAddress
from tests.flows.s3_shows import shows
from tests.flows.test_batch_shows import SMALL


def test_a_flow_leaves_the_same_in_s3_and_is_read_and_resumed_from_elsewhere(
    tmp_path: Path, seaweedfs: ServerAddress, s3_url: str
) -> None:
    told = shows(tmp_path, seaweedfs.variables, s3_url, SMALL)
    assert len(told) == 4
