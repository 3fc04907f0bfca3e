"""What a step of a gang may ask of AWS Batch."""

import pytest

from engine.config import Config
from engine.errors import ConfigError
from engine.executors.batch_requests import Needs
from engine.flow.decorators.batch import Batch
from engine.runtime.batch_needs import needs_of, refuse_gang


@pytest.mark.parametrize("pack", [2, "auto"])
def test_a_gang_whose_tasks_are_to_share_containers_is_refused(pack: int | str) -> None:
    needs = needs_of(Batch(pack=pack), None, Config())
    with pytest.raises(ConfigError, match=r"'train' has @parallel beside @batch\(pack=") as caught:
        refuse_gang("train", needs)
    assert str(pack) in caught.value.message
    assert caught.value.hint == "give 'train' a @batch without pack"


def test_a_gang_with_a_container_for_each_task_is_let_through() -> None:
    refuse_gang("train", needs_of(Batch(pack=1), None, Config()))


@pytest.mark.parametrize("platform", ["SPOT", "FARGATE", "FARGATE_SPOT"])
def test_a_gang_on_machines_that_run_no_multi_node_jobs_is_refused(platform: str) -> None:
    with pytest.raises(ConfigError, match=f"is of {platform}"):
        refuse_gang("train", Needs("queue", "image", platform=platform))
