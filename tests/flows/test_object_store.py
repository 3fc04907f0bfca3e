"""A flow whose datastore is in S3: run here, read and gone on from there, equal to a local run."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.config import Config
from engine.stores.s3.store import open_s3
from engine.testing.fault_proxy import Faults
from engine.testing.servers import ServerAddress
from tests.faults.remote_site import proxied
from tests.flows.harness import Said, aflow

FLOW = """
import os, sys, time
import numpy as np
from engine import FlowSpec, Parameter, step

class Sums(FlowSpec):
    size = Parameter("size", default=50_000)

    @step
    def start(self):
        self.table = np.arange(self.size, dtype=float)
        self.words = ["x" * 5000, {"a": 1}]
        self.items = list(range(4))
        self.next(self.part, foreach="items")

    @step
    def part(self):
        print("part", self.input)
        self.total = float(self.table.sum()) + self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs, include=["table", "words"])
        self.totals = [task.total for task in inputs]
        self.next(self.end)

    @step
    def end(self):
        if os.environ.get("SUMS") == "fail":
            raise ValueError("asked to")
        if os.environ.get("SUMS") == "wait":
            print("waiting", flush=True)
            time.sleep(600)
        print("sum", sum(self.totals), self.table.shape)
"""


@dataclass
class Machine:
    """A place with a cache of its own, that sees the shared store only."""

    folder: Path
    env: dict[str, str]

    def aflow(self, *words: str, **env: str) -> Said:
        return aflow(*words, cwd=self.folder, env=self.env | env)

    def done(self, *words: str) -> Said:
        said = self.aflow(*words)
        assert said.code == 0, said
        return said


@pytest.fixture
def machine(tmp_path: Path, seaweedfs: ServerAddress, s3_url: str) -> Callable[[str], Machine]:
    return _machines(tmp_path, seaweedfs, s3_url)


def _machines(folder: Path, server: ServerAddress, url: str) -> Callable[[str], Machine]:
    def make(name: str) -> Machine:
        place = folder / name
        place.mkdir()
        (place / "sums.py").write_text(FLOW)
        env = {**server.variables, "AFLOW_DATASTORE": url, "XDG_CACHE_HOME": str(place / "cache")}
        return Machine(place, env)

    return make


def digests(said: Said) -> dict[str, str]:
    """The digests of what `dump --json` tells."""
    (task,) = json.loads(said.out)["tasks"]
    return {name: fields["sha"] for name, fields in task["artifacts"].items()}


def check_that_a_run_equals_a_local_one(make: Callable[[str], Machine], local: str) -> None:
    here, there = make("here"), make("there")
    assert "sum 4999900006.0 (50000,)" in here.done("run", "sums.py").out
    assert here.aflow("run", "sums.py", AFLOW_DATASTORE=local).code == 0
    assert "succeeded" in there.done("list").out
    assert there.done("logs", "@latest/part").out.count("part") >= 4
    assert "end" in there.done("status", "@latest").out
    copy = there.done("dump", "@latest/end/0", "--json")
    original = here.aflow("dump", "@latest/end/0", "--json", AFLOW_DATASTORE=local)
    assert digests(copy) == digests(original)
    assert len(digests(copy)) >= 4


def test_a_run_in_s3_equals_a_local_one_and_is_read_from_anywhere(
    tmp_path: Path, seaweedfs: ServerAddress, s3_url: str
) -> None:
    make = _machines(tmp_path, seaweedfs, s3_url)
    check_that_a_run_equals_a_local_one(make, str(tmp_path / "local"))


def test_a_run_in_moto_equals_a_local_one_and_is_read_from_anywhere(
    tmp_path: Path, moto: ServerAddress, s3_url: str
) -> None:
    make = _machines(tmp_path, moto, s3_url)
    check_that_a_run_equals_a_local_one(make, str(tmp_path / "local"))


def test_another_machine_goes_on_from_a_failed_run(machine: Callable[[str], Machine]) -> None:
    here, there = machine("here"), machine("there")
    assert here.aflow("run", "sums.py", SUMS="fail").code == 1
    resumed = there.done("resume", "sums.py")
    assert "1 tasks done, 6 reused" in resumed.err
    assert "sum 4999900006.0 (50000,)" in resumed.out


def test_r01_a_killed_driver_loses_nothing_that_its_machine_still_has(
    machine: Callable[[str], Machine],
) -> None:
    here = machine("here")
    command = [sys.executable, "-P", "-c", "from engine.cli.main import main; main()"]
    with subprocess.Popen(
        [*command, "run", "sums.py"],
        cwd=here.folder,
        env=os.environ | here.env | {"SUMS": "wait"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        while b"waiting" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert "interrupted" in here.done("list").out
    assert "all is well" in here.done("fsck").out
    assert "all is well" in machine("there").done("fsck").out
    assert "1 tasks done, 6 reused" in here.done("resume", "sums.py").err


def test_r20_room_in_s3_is_told_and_made(machine: Callable[[str], Machine]) -> None:
    here, there = machine("here"), machine("there")
    here.done("run", "sums.py")
    here.done("run", "sums.py", "--size", "60000")
    told = json.loads(there.done("du", "--json").out)
    assert told["flows"][0]["total_bytes"] > 8 * (50_000 + 60_000)
    assert told["unreferenced_bytes"] == 0
    removed = json.loads(there.done("delete", "@latest", "--yes", "--json").out)
    assert removed["blobs"] == 1
    assert removed["complete"]
    assert len(json.loads(here.done("list", "--json").out)["runs"]) == 1
    assert "all is well" in there.done("fsck", "--read-data").out
    assert json.loads(here.done("gc", "--yes", "--json").out)["blobs"] == 0


def test_r07_a_damaged_object_is_named_and_a_missing_one_too(
    machine: Callable[[str], Machine], s3_url: str, seaweedfs: ServerAddress
) -> None:
    here, there, third = machine("here"), machine("there"), machine("third")
    here.done("run", "sums.py")
    large = next(
        a["sha"]
        for a in json.loads(here.done("dump", "@latest/end/0", "--json").out)["tasks"][0][
            "artifacts"
        ].values()
        if a["type"] == "numpy.ndarray"
    )
    asyncio.run(_damage(s3_url, seaweedfs, f"blobs/{large[:2]}/{large}"))
    checked = there.aflow("fsck", "--read-data", "--json")
    assert checked.code == 6
    assert [d["digest"] for d in json.loads(checked.out)["damages"]] == [large]
    read = third.aflow("dump", "@latest/start/0/table", "--unpickle")
    assert read.code == 6
    assert "error[blob-corrupt]" in read.err


async def _damage(url: str, server: ServerAddress, key: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.variables.items():
            patch.setenv(name, value)
        store = open_s3(url, Config())
        data = bytearray(await store.get(key))
        data[len(data) // 2] ^= 1
        await store.put(key, (data,))
        await store.aclose()


LARGE = """
import numpy as np
from engine import FlowSpec, step

class Large(FlowSpec):
    @step
    def start(self):
        self.array = np.random.default_rng(7).random(8_400_000)
        self.next(self.end)

    @step
    def end(self):
        pass
"""
RANGES = """
import numpy as np
from engine import Flow

array = Flow("Large").latest_run["start"].task.data.array
assert (array[1000:1200] == np.random.default_rng(7).random(1200)[1000:]).all()
"""


def test_a_range_of_an_array_in_s3_moves_less_than_a_hundredth_of_it(
    machine: Callable[[str], Machine], seaweedfs: ServerAddress
) -> None:
    here, there = machine("here"), machine("there")
    (here.folder / "large.py").write_text(LARGE)
    here.done("run", "large.py")
    faults = Faults(0.0)
    with proxied(seaweedfs.endpoint_url, faults) as proxy:
        read = subprocess.run(
            [sys.executable, "-c", RANGES],
            env=os.environ | there.env | {"AWS_ENDPOINT_URL": proxy},
            capture_output=True,
            text=True,
        )
    assert read.returncode == 0, read.stderr
    asked, *more = [head for head in faults.heads if "/blobs/" in head]
    assert more == []
    assert asked.startswith("get ")
    found = re.search(r"range: bytes=(\d+)-(\d+)", asked)
    assert found
    moved = int(found[2]) - int(found[1]) + 1
    assert moved == 200 * 8


LOADS = """
from engine import Flow

assert Flow("Sums").latest_run["end"].task.data.table.shape == (50_000,)
"""


def test_a_program_that_loads_a_value_from_s3_and_closes_nothing_ends(
    machine: Callable[[str], Machine],
) -> None:
    here, there = machine("here"), machine("there")
    here.done("run", "sums.py")
    loads = subprocess.run(
        [sys.executable, "-c", LOADS], env=os.environ | there.env, capture_output=True, timeout=30
    )
    assert (loads.returncode, loads.stderr) == (0, b"")


FOLLOWED = """
import os, time
from engine import FlowSpec, step

class Followed(FlowSpec):
    @step
    def start(self):
        print("waiting", flush=True)
        while not os.path.exists("go"):
            time.sleep(0.05)
        print("went on")
        self.next(self.end)

    @step
    def end(self):
        raise ValueError("asked to")
"""


def test_a_run_that_another_machine_drives_is_followed_to_its_exit_code(
    machine: Callable[[str], Machine],
) -> None:
    here, there = machine("here"), machine("there")
    (here.folder / "followed.py").write_text(FOLLOWED)
    command = [sys.executable, "-P", "-c", "from engine.cli.main import main; main()"]
    run = subprocess.Popen(
        [*command, "run", "followed.py", "--quiet"],
        cwd=here.folder,
        env=os.environ | here.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not json.loads(there.done("list", "--json").out)["runs"]:
        assert run.poll() is None
    with subprocess.Popen(
        [*command, "logs", "-f", "@latest", "--no-log-prefix"],
        cwd=there.folder,
        env=os.environ | there.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "waiting\n"
        (here.folder / "go").touch()
        assert following.stdout.readline() == "went on\n"
        assert "asked to" in following.stdout.read()
    assert (following.returncode, run.wait(30)) == (1, 1)


def test_doctor_tells_whether_s3_can_be_used(machine: Callable[[str], Machine]) -> None:
    here = machine("here")
    assert "can be written" in here.done("doctor").out
    wrong = here.aflow("doctor", AWS_SECRET_ACCESS_KEY="wrong")
    assert wrong.code == 3
    assert "SignatureDoesNotMatch" in wrong.out
