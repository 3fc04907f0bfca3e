"""@batch: its attributes, and what a step needs when all is joined."""

from pathlib import Path

import pytest

from engine.config import Config
from engine.errors import FlowError, UsageError
from engine.executors.batch_requests import AUTO_PACK
from engine.flow.decorators import Batch, Resources, batch
from engine.flow.decorators.specs import parse_spec
from engine.runtime.batch_needs import default_image, more_memory, needs_of


def test_sizes_lists_and_pairs_may_be_texts() -> None:
    given = Batch(
        cpu="4",
        memory="2G",
        host_volumes="/a,/b:/c",
        aws_batch_tags="team=ml,stage:test",
        log_options=["awslogs-group=g"],
    )
    assert (given.cpu, given.memory) == (4, 2048)
    assert given.host_volumes == ("/a", "/b:/c")
    assert given.aws_batch_tags == {"team": "ml", "stage": "test"}
    assert given.log_options == {"awslogs-group": "g"}


def test_the_command_line_attaches_it() -> None:
    assert parse_spec("batch:cpu=4,memory=16G,image=python:3.12") == Batch(
        cpu=4, memory=16384, image="python:3.12"
    )
    with pytest.raises(UsageError, match="no attribute 'cpus'"):
        parse_spec("batch:cpus=4")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"cpu": 0}, "must be above 0"),
        ({"gpu": 1.5}, "whole number"),
        ({"memory": "much"}, "whole number"),
        ({"image": ""}, "not empty"),
        ({"swappiness": 101, "max_swap": 1}, "0 to 100"),
        ({"swappiness": 10}, "needs max_swap"),
        ({"ephemeral_storage": 20}, "at least 21"),
        ({"ephemeral_storage": 201}, "21 to 200"),
        ({"log_driver": "paper"}, "one of awslogs"),
        ({"tmpfs_path": "here"}, "absolute path"),
        ({"host_volumes": "data"}, "absolute paths"),
        ({"aws_batch_tags": "team"}, "key=value"),
        ({"inferentia": 1, "trainium": 1}, "beside inferentia"),
        ({"memmory": 1}, "no attribute 'memmory'"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(FlowError, match=problem) as caught:
        batch(**fields)
    assert (caught.value.where or "").startswith(f"{Path(__file__)}:")


def test_of_batch_and_resources_the_larger_is_taken() -> None:
    needs = needs_of(
        Batch(cpu=2, memory=1000, shared_memory=64),
        Resources(cpu=1, memory=5000, gpu=1, shared_memory=32),
        Config(batch_queue="q", batch_image="i"),
    )
    assert (needs.cpu, needs.memory_mib, needs.gpu) == (2, 5000, 1)
    assert (needs.shared_memory_mib, needs.queue, needs.image) == (64, "q", "i")


def test_what_nobody_asks_for_is_the_default_and_a_step_goes_before_the_settings() -> None:
    plain = needs_of(Batch(), None, Config())
    assert (plain.cpu, plain.memory_mib, plain.image) == (1.0, 4096, default_image())
    small = needs_of(Batch(cpu=0.25, memory=512), None, Config())
    assert (small.cpu, small.memory_mib) == (0.25, 512)
    settings = Config(batch_queue="q", batch_image="i", batch_job_role="r")
    own = needs_of(Batch(queue="mine", image="j", iam_role="s"), None, settings)
    assert (own.queue, own.image, own.job_role) == ("mine", "j", "s")


def test_a_file_system_in_memory_is_half_of_it_and_holds_temporary_files() -> None:
    needs = needs_of(Batch(memory=1000, use_tmpfs=True), None, Config())
    assert (needs.tmpfs_mib, needs.variables) == (500, {"TMPDIR": "/aflow_temp"})
    other = needs_of(Batch(tmpfs_size=70, tmpfs_tempdir=False), None, Config())
    assert (other.tmpfs_mib, other.variables) == (70, {})


def test_memory_grows_with_each_attempt_that_wanted_more() -> None:
    needs = needs_of(Batch(memory=1000), None, Config())
    assert [more_memory(needs, 1.5, times).memory_mib for times in (1, 2)] == [1500, 2250]


@pytest.mark.parametrize("pack", [0, 1001, -1, 2.5, True, "many"])
def test_a_pack_is_a_number_of_items_or_auto(pack: object) -> None:
    with pytest.raises(FlowError, match="pack"):
        Batch(pack=pack)  # type: ignore[arg-type]  # what it refuses


def test_pack_says_how_many_jobs_share_a_container() -> None:
    assert needs_of(Batch(pack=10), None, Config()).pack == 10
    assert needs_of(Batch(pack="10"), None, Config()).pack == 10
    assert needs_of(Batch(pack="auto"), None, Config()).pack == AUTO_PACK
