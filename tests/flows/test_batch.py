"""Flows with steps in AWS Batch, by the emulator, and others local: equal to local runs."""

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import boto3
import pytest

from engine.testing.servers import ServerAddress
from tests.faults.batch_adoption import FLOW as WAITING
from tests.faults.batch_adoption import Adopted, adopt, environment
from tests.flows.harness import Said, aflow
from tests.servers import QUEUE

FLOW = """
import os, sys, time
import numpy as np
from beside import scale
from engine import FlowSpec, Parameter, batch, current, step

class Fan(FlowSpec):
    width = Parameter("width", default=18)

    @step
    def start(self):
        self.table = np.arange(50_000, dtype=float)
        self.next(self.fan)

    @batch(memory="1G")
    @step
    def fan(self):
        self.items = [bytes([number]) * 70_000 for number in range(self.width)]
        print("fanning out", len(self.items))
        self.next(self.part, foreach="items")

    @step
    def part(self):
        self.total = scale(float(self.table.sum())) + len(self.input)
        self.mine = self.table + self.input[0]
        self.next(self.join)

    @batch
    @step
    def join(self, inputs):
        self.totals = [task.total for task in inputs]
        self.sums = [float(task.mine[:3].sum()) for task in inputs]
        self.merge_artifacts(inputs, include=["table"])
        self.next(self.end)

    @step
    def end(self):
        print("totals", len(self.totals), sum(self.sums))
"""

TROUBLE = """
import os, signal, sys
from engine import FlowSpec, batch, catch, current, retry, step

class Trouble(FlowSpec):
    @step
    def start(self):
        self.kinds = ["raises", "exits", "killed", "second", "well"]
        self.next(self.work, foreach="kinds")

    @batch
    @retry(times=1, minutes_between_retries=0)
    @catch(var="failure")
    @step
    def work(self):
        self.kind = self.input
        print("doing", self.kind, flush=True)
        if self.kind == "raises":
            raise ValueError("asked to")
        if self.kind == "exits":
            os._exit(3)
        if self.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "second" and current.retry_count == 0:
            raise ValueError("not yet")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.ended = [(getattr(i, "kind", None), str(i.failure)) for i in inputs]
        for kind, failure in self.ended:
            print(kind, "|", failure.replace(chr(10), " ")[-150:])
        self.next(self.end)

    @step
    def end(self):
        if not os.environ.get("PASS"):
            raise RuntimeError("the end fails")
"""


FAULTY = """
import time
from engine import FlowSpec, batch, catch, current, retry, step

class Faulty(FlowSpec):
    @step
    def start(self):
        self.next(self.reclaimed)

    @batch
    @step
    def reclaimed(self):
        print("attempt", current.retry_count, flush=True)
        time.sleep(2)
        self.attempt = current.retry_count
        self.next(self.grows)

    @batch(memory="2G")
    @retry(times=1, minutes_between_retries=0, oom_memory=2)
    @step
    def grows(self):
        self.grown = current.retry_count
        time.sleep(1)
        self.next(self.unpulled)

    @batch(image="registry.example.org/nothing:1")
    @catch(var="failure")
    @step
    def unpulled(self):
        self.next(self.end)

    @step
    def end(self):
        print("said", self.attempt, self.grown, "|", str(self.failure).strip())
"""

PACKED = """
import os
from engine import FlowSpec, batch, current, retry, step

class Packed(FlowSpec):
    @step
    def start(self):
        self.items = list(range(8))
        self.next(self.work, foreach="items")

    @batch(pack=4)
    @retry(times=1, minutes_between_retries=0)
    @step
    def work(self):
        print("item", self.input, flush=True)
        if self.input == 2 and current.retry_count == 0:
            os._exit(9)
        if self.input == 5 and not BROKEN_IS_MENDED:
            raise ValueError("five is broken")
        self.made = self.input * 10
        self.next(self.join)

    @step
    def join(self, inputs):
        self.made = [task.made for task in inputs]
        self.next(self.end)

    @step
    def end(self):
        print("made", self.made)

BROKEN_IS_MENDED = False
"""


@dataclass
class Place:
    """A directory with a flow, a cache of its own, and the emulator."""

    folder: Path
    env: dict[str, str]

    def aflow(self, *words: str, **env: str) -> Said:
        return aflow(*words, cwd=self.folder, env=self.env | env)

    def done(self, *words: str, **env: str) -> Said:
        said = self.aflow(*words, **env)
        assert said.code == 0, said
        return said

    def artifacts(self, step: str, **env: str) -> list[dict[str, str]]:
        """The digests of each task of a step of the latest run, by artifact."""
        tasks = json.loads(self.done("dump", f"@latest/{step}", "--json", **env).out)["tasks"]
        return [{name: a["sha"] for name, a in task["artifacts"].items()} for task in tasks]


@pytest.fixture(scope="module")
def runtimes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package of aflow is remembered, so that it is made once."""
    return tmp_path_factory.mktemp("runtimes")


@pytest.fixture
def place(tmp_path: Path, batch_emulator: ServerAddress, s3_url: str, runtimes: Path) -> Place:
    (tmp_path / "fan.py").write_text(FLOW)
    (tmp_path / "trouble.py").write_text(TROUBLE)
    (tmp_path / "beside.py").write_text("def scale(x):\n    return 2 * x\n")
    env = environment(batch_emulator, s3_url, runtimes)
    return Place(tmp_path, env)


def test_a_run_with_steps_in_batch_equals_a_local_one(place: Place) -> None:
    said = place.done("run", "fan.py", "--max-workers", "8")
    local = {"AFLOW_DATASTORE": str(place.folder / "local")}
    plain = FLOW.replace('@batch(memory="1G")', "").replace("@batch", "")
    (place.folder / "fan.py").write_text(plain)
    place.done("run", "fan.py", **local)
    for step in ("start", "fan", "part", "join", "end"):
        assert place.artifacts(step) == place.artifacts(step, **local), step
    assert "totals 18" in said.out
    assert "fanning out 18" in place.done("logs", "@latest/fan").out


def test_failures_in_batch_are_those_of_local_tasks_and_are_caught_and_resumed(
    place: Place,
) -> None:
    said = place.aflow("run", "trouble.py", "--max-workers", "5")
    assert said.code == 1, said
    assert "the end fails" in said.err
    lines = [line for line in said.out.splitlines() if " | " in line]
    told = {line.split(" | ")[0].split()[-1]: line for line in lines}
    assert "asked to" in told["raises"], said
    assert told["second"].endswith("None")
    assert told["well"].endswith("None")
    assert "exited with code 3" in said.out
    assert "killed" in said.out
    resumed = place.done("resume", "--origin-run-id", "@latest", "trouble.py", PASS="1")
    assert "reus" in resumed.err


def test_r12_a_run_that_goes_on_adopts_what_its_dead_driver_had_in_flight(
    place: Place, record_property: Callable[[str, object], None]
) -> None:
    adopted = adopt(place.folder, place.env, 6, running=6)
    assert adopted == Adopted(6, resubmitted=0, lost=0, ran_twice=0)
    record_property("jobs in flight at the driver's death", adopted.in_flight)
    record_property("of them submitted again", adopted.resubmitted)
    record_property("of them lost", adopted.lost)


def test_items_that_share_a_container_commit_fail_and_are_resumed_one_by_one(
    place: Place, batch_emulator: ServerAddress
) -> None:
    (place.folder / "packed.py").write_text(PACKED)
    said = place.aflow("run", "packed.py", "--max-workers", "8")
    assert said.code == 1, said
    assert "five is broken" in said.err
    # Two containers of four, and one for each of the two that are tried again.
    sizes = sizes_of(batch_emulator, run_of(said))
    assert sizes[0] == 2, sizes
    assert sum(sizes[1:]) in (1, 2), sizes
    done = json.loads(place.done("dump", "@latest/work", "--json").out)["tasks"]
    made = [task for task in done if "made" in task["artifacts"]]
    assert len(made) == 7, "a failed item took others with it"
    assert "item 6" in place.done("logs", "@latest/work/6").out
    assert "item 5" not in place.done("logs", "@latest/work/6").out
    mended = PACKED.replace("BROKEN_IS_MENDED = False", "BROKEN_IS_MENDED = True")
    (place.folder / "packed.py").write_text(mended)
    resumed = place.done("resume", "packed.py", "--max-workers", "8")
    assert "made [0, 10, 20, 30, 40, 50, 60, 70]" in resumed.out
    assert sizes_of(batch_emulator, run_of(resumed)) == [1]


def test_r14_a_container_that_is_reclaimed_goes_on_where_it_was(
    place: Place, batch_emulator: ServerAddress, record_property: Callable[[str, object], None]
) -> None:
    folder = place.folder / "seen"
    folder.mkdir()
    text = WAITING.replace("@batch", "@batch(pack=6)").replace("held", "packed")
    text = text.replace(
        "        self.made = self", "        time.sleep(1)\n        self.made = self", 1
    )
    (place.folder / "waits.py").write_text(text)
    (folder / "go").touch()
    # Of six items of a second each the machine is taken away after 3 s.
    rules: list[dict[str, object]] = [
        {"fault": "reclaim", "job": "*-packed-*", "attempts": [1], "after_s": 3.0, "times": 1},
    ]
    words = ["run", "waits.py", "--max-workers", "6", "--folder", str(folder)]
    with planned(batch_emulator, "flows-packed", rules):
        said = place.done(*words)
    assert "all 6" in said.out
    began = len(list(folder.glob("began-*")))
    assert began <= 7, "what was committed ran again"
    record_property("items that ran twice after a reclaim", began - 6)


def test_r14_faults_of_batch_cost_what_they_should_and_are_told(
    place: Place, batch_emulator: ServerAddress
) -> None:
    (place.folder / "faulty.py").write_text(FAULTY)
    rules: list[dict[str, object]] = [
        {"fault": "reclaim", "job": "*-reclaimed-*", "attempts": [1], "after_s": 0.2, "times": 1},
        {"fault": "oom", "job": "*-grows-*", "after_s": 0.2, "times": 1},
        {"fault": "unpullable", "job": "*-unpulled-*"},
    ]
    with planned(batch_emulator, "flows-faulty", rules):
        said = place.done("run", "faulty.py")
    lines = [line for line in said.out.splitlines() if "said" in line]
    assert "said 0 1 | " in lines[0], said  # a reclaim costs no retry, want of memory costs one
    assert "image" in said.out.partition("said")[2]
    assert memory_of(batch_emulator, "*-grows-*") == ["2048", "4096"]


def test_batch_without_an_object_store_is_refused_before_the_run(place: Place) -> None:
    datastore = place.folder / "local"
    said = place.aflow("run", "fan.py", AFLOW_DATASTORE=str(datastore))
    assert said.code == 3
    assert "@batch needs a datastore in S3" in said.err
    assert "--datastore s3://" in said.err
    assert not list((datastore / "runs").glob("*/*"))


def test_a_queue_that_is_not_there_is_told_with_those_that_are(place: Place) -> None:
    said = place.aflow("run", "fan.py", AFLOW_BATCH_QUEUE="nowhere")
    assert said.code == 3
    assert "there is no job queue 'nowhere'" in said.err
    assert QUEUE in said.err


@pytest.mark.parametrize(
    ("env", "found"),
    [
        (
            {
                "AFLOW_BATCH_QUEUE": "nowhere",
                "AFLOW_DATASTORE": "s3://no-such-bucket/x",
                "AFLOW_BATCH_JOB_ROLE": "arn:aws:iam::1:role/no",
            },
            ["there is no job queue 'nowhere'", "NoSuchBucket", "there is no role 'no'"],
        ),
        (
            {"AFLOW_DATASTORE": "here", "AFLOW_BATCH_EXECUTION_ROLE": ""},
            ["containers cannot see it", "needs an execution role"],
        ),
        ({"AFLOW_BATCH_ENDPOINT_URL": "http://127.0.0.1:9"}, ["Could not connect"]),
    ],
)
def test_the_doctor_says_all_that_is_missing_and_how_to_mend_it(
    place: Place, env: dict[str, str], found: list[str]
) -> None:
    said = place.aflow("doctor", "batch", "--json", **env)
    errors = [f for f in json.loads(said.out)["findings"] if f["level"] == "error"]
    for text in found:
        assert any(text in error["found"] for error in errors), said
    assert all(error["hint"] for error in errors)
    assert said.code == 3


@contextmanager
def planned(emulator: ServerAddress, name: str, rules: list[dict[str, object]]) -> Iterator[None]:
    """A plan of faults in the emulator, while the block lasts."""
    try:
        put(emulator, name, {"seed": 0, "rules": rules})
        yield
    finally:
        put(emulator, name, {"rules": []})


def put(emulator: ServerAddress, name: str, plan: dict[str, object]) -> None:
    url = f"{emulator.endpoint_url}/aflow/batch/faults/{name}"
    request = urllib.request.Request(url, json.dumps(plan).encode(), method="PUT")
    urllib.request.urlopen(request, timeout=10.0).close()


def run_of(said: Said) -> str:
    """The id of the run that a command began."""
    return str(re.findall(r"[A-Za-z]\w*/([0-9A-HJKMNP-TV-Z]{16})\b", said.err)[-1])


def sizes_of(emulator: ServerAddress, run_id: str) -> list[int]:
    """How many containers each job of a run had, the oldest first."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in emulator.variables.items():
            patch.setenv(variable, value)
        client = boto3.client("batch")
        found = [
            (job["createdAt"], (job.get("arrayProperties") or {}).get("size", 1))
            for state in ("FAILED", "SUCCEEDED")
            for page in client.get_paginator("list_jobs").paginate(jobQueue=QUEUE, jobStatus=state)
            for job in page["jobSummaryList"]
            if job["jobName"].startswith(run_id)
        ]
        client.close()
    return [size for _, size in sorted(found)]


def memory_of(emulator: ServerAddress, pattern: str) -> list[str]:
    """The MiB that jobs of a name were submitted with, the oldest first."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in emulator.variables.items():
            patch.setenv(variable, value)
        client = boto3.client("batch")
        found = [
            job["jobId"]
            for state in ("FAILED", "SUCCEEDED")
            for page in client.get_paginator("list_jobs").paginate(jobQueue=QUEUE, jobStatus=state)
            for job in page["jobSummaryList"]
            if fnmatch(job["jobName"], pattern)
        ]
        jobs = client.describe_jobs(jobs=found)["jobs"]
        client.close()
    return [
        need["value"]
        for job in sorted(jobs, key=lambda job: job["createdAt"])
        for need in job["container"]["resourceRequirements"]
        if need["type"] == "MEMORY"
    ]
