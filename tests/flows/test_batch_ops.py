"""What a user does about jobs in AWS Batch: sees why they wait, lists and ends them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing.servers import ServerAddress
from tests.faults.batch_adoption import within
from tests.faults.broken_batch import prepare
from tests.flows.harness import LIMIT_S
from tests.flows.test_batch import Place, place, planned, runtimes

__all__ = ["place", "runtimes"]

WIDE = """
import time
from engine import FlowSpec, batch, step

class Wide(FlowSpec):
    @step
    def start(self):
        self.items = [0, 1]
        self.next(self.work, foreach="items")

    @batch(cpu=8)
    @step
    def work(self):
        time.sleep(60)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
"""
SPOT = """
import time
from engine import FlowSpec, batch, current, step

class Spotty(FlowSpec):
    @step
    def start(self):
        self.next(self.spotty)

    @batch(on_demand_queue="broken-steady")
    @step
    def spotty(self):
        time.sleep(1)
        self.attempt = current.retry_count
        self.next(self.end)

    @step
    def end(self):
        print("attempt", self.attempt)
"""

TWO = """
import time
from engine import FlowSpec, batch, step

class Two(FlowSpec):
    @step
    def start(self):
        self.next(self.here, self.there)

    @batch
    @step
    def here(self):
        time.sleep(60)
        self.next(self.join)

    @batch(queue="broken-steady")
    @step
    def there(self):
        time.sleep(60)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
"""


@pytest.fixture
def queues(batch_emulator: ServerAddress, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`broken-small`, which has 8 vCPUs, and `broken-steady`."""
    prepare(batch_emulator, tmp_path_factory.mktemp("images"))


def listed(place: Place, *words: str, **env: str) -> list[dict[str, str]]:
    jobs: list[dict[str, str]] = json.loads(
        place.done("batch", "list", "--json", *words, **env).out
    )["jobs"]
    return jobs


@pytest.mark.usefixtures("queues")
def test_why_a_task_waits_is_told_and_its_jobs_are_listed_and_ended_by_user(place: Place) -> None:
    (place.folder / "wide.py").write_text(WIDE)
    user = f"ada-{place.folder.name[-20:]}"
    place.env |= {
        "AFLOW_USER": user,
        "AFLOW_BATCH_QUEUE": "broken-small",
        "AFLOW_BATCH_ARRAY_MAX": "1",
        "AFLOW_BATCH_WAITING_S": "1",
    }
    said = place.folder / "said"
    with (
        said.open("w") as out,
        subprocess.Popen(
            [
                *(sys.executable, "-P", "-c", "from engine.cli.main import main; main()"),
                *("run", "wide.py", "--max-workers", "2", "--run-id-file", "id"),
            ],
            cwd=place.folder,
            env=os.environ | place.env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        ) as driver,
    ):
        try:
            within(LIMIT_S, lambda: "waits in AWS Batch for" in said.read_text())
            why = "waiting for capacity: queue 'broken-small' may have 8 vCPUs in all"
            assert why in said.read_text()
            run = Path(place.folder / "id").read_text()
            status = place.done("status", run).out
            assert "waiting in AWS Batch: 1 task, " in status, status
            assert why in status
            [waiting] = json.loads(place.done("status", run, "--json").out)["waiting"]
            assert (waiting["tasks"], waiting["why"]) == (1, why)
            assert [job["user"] for job in listed(place, "--mine")] == [user] * 2
            assert listed(place, run, "--user", "nobody") == []
            assert place.aflow("batch", "kill", "--yes").code == 2
            would = place.done("batch", "kill", "--mine", "--dry-run").out
            assert f"would end  {run}-work-0-0  {user}" in would
            ended = place.done("batch", "kill", "--user", user, "--yes").out
            assert "2 jobs" in ended
            assert f"ended  {run}-work-1-0  {user}" in ended
            assert driver.wait(timeout=LIMIT_S) == 1
        finally:
            driver.kill()
    assert listed(place, "--mine") == []


@pytest.mark.usefixtures("queues")
def test_r14_a_task_goes_on_on_demand_when_three_machines_were_taken_away(
    place: Place, batch_emulator: ServerAddress
) -> None:
    (place.folder / "spot.py").write_text(SPOT)
    rules: list[dict[str, object]] = [
        {"fault": "reclaim", "job": "*-spotty-0-0", "after_s": 0.1, "times": 3}
    ]
    with planned(batch_emulator, "flows-spot", rules):
        said = place.done("run", "spot.py")
    assert "attempt 0" in said.out, said
    assert "its machines were taken away; it goes on in queue broken-steady" in said.err + said.out


@pytest.mark.usefixtures("queues")
def test_jobs_are_listed_and_ended_in_all_queues_that_the_steps_of_their_runs_name(
    place: Place,
) -> None:
    (place.folder / "two.py").write_text(TWO)
    user = f"ida-{place.folder.name[-20:]}"
    place.env |= {"AFLOW_USER": user, "AFLOW_BATCH_QUEUE": "broken-small"}
    with (
        (place.folder / "said").open("w") as out,
        subprocess.Popen(
            [
                *(sys.executable, "-P", "-c", "from engine.cli.main import main; main()"),
                *("run", "two.py", "--run-id-file", "id"),
            ],
            cwd=place.folder,
            env=os.environ | place.env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        ) as driver,
    ):
        try:
            within(LIMIT_S, lambda: len(listed(place, "--mine")) == 2, driver)
            driver.kill()
            driver.wait()
            run = Path(place.folder / "id").read_text()
            both = {"broken-small", "broken-steady"}
            assert {job["queue"] for job in listed(place, run[:20])} == both
            assert [job["queue"] for job in listed(place, run, "--queue", "broken-steady")] == [
                "broken-steady"
            ]
            assert "2 jobs" in place.done("batch", "kill", run, "--yes").out
        finally:
            driver.kill()
    within(LIMIT_S, lambda: listed(place, "--mine") == [])
