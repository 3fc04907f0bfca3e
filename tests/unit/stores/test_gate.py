"""The gate: runs begin through it, and nothing is removed while one does."""

import asyncio
from pathlib import Path

import pytest

from engine.errors import StoreUnavailableError
from engine.stores.gate import entered, shut
from engine.stores.layout import Layout


@pytest.fixture
def runs(layout: Layout) -> str:
    return str(layout.root / "runs")


def test_runs_begin_side_by_side_and_the_gate_is_not_shut_on_them(runs: str) -> None:
    async def scenario() -> None:
        async with entered(runs, wait_s=0), entered(runs, wait_s=0):
            with pytest.raises(StoreUnavailableError, match="stayed locked"), shut(runs, wait_s=0):
                pytest.fail("it was shut on two runs")

    asyncio.run(scenario())
    with shut(runs, wait_s=0):
        pass


def test_a_run_waits_until_the_gate_is_open(runs: str) -> None:
    async def scenario() -> list[str]:
        order: list[str] = []

        async def begin() -> None:
            async with entered(runs):
                order.append("began")

        async with asyncio.TaskGroup() as group:
            with shut(runs, wait_s=0):
                group.create_task(begin())
                await asyncio.sleep(0.02)
                order.append("opened")
        return order

    assert asyncio.run(scenario()) == ["opened", "began"]


def test_one_who_waits_for_long_is_told_who_holds_the_gate(runs: str) -> None:
    async def scenario() -> None:
        with shut(runs, wait_s=0):
            async with entered(runs, wait_s=0.01):
                pytest.fail("it began behind a shut gate")

    with pytest.raises(StoreUnavailableError, match=r"runs stayed locked") as caught:
        asyncio.run(scenario())
    assert "aflow gc" in (caught.value.hint or "")


def test_one_collection_at_a_time_has_the_gate(runs: str) -> None:
    with shut(runs, wait_s=0), pytest.raises(StoreUnavailableError), shut(runs, wait_s=0):
        pytest.fail("it was shut twice")


def test_a_copy_of_a_datastore_that_lacks_the_directory_has_a_gate(tmp_path: Path) -> None:
    runs = tmp_path / "copy" / "runs"
    with shut(str(runs), wait_s=0):
        assert runs.is_dir()
