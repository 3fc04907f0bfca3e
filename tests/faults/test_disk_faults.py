"""R-08: a disk that refuses. A sample of python -m tests.faults.disk_faults, and a full tmpfs."""

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.client.reader import Reader
from tests.faults.corruption import Place
from tests.faults.crashes import Undisturbed
from tests.faults.disk_faults import Count, site_of, trial
from tests.faults.vfs import REFUSALS

SEED = 20_261_124
CALLS = {"ENOSPC": 110, "EDQUOT": 110, "EROFS": 115, "EMFILE": 35, "ENOMEM": 130}
"""Of such a run; a few more or less are made each time."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed.run(site_of(tmp_path_factory.mktemp("undisturbed")))


@pytest.mark.parametrize("name", REFUSALS)
def test_r08_a_run_whose_disk_refuses_is_told_and_goes_on_when_it_does_not(
    tmp_path: Path,
    undisturbed: Undisturbed,
    name: str,
    record_property: Callable[[str, object], None],
) -> None:
    chance = random.Random(f"{SEED} {name}")
    count = Count()
    for number in chance.sample(range(1, CALLS[name]), 3):
        place = tmp_path / str(number)
        place.mkdir()
        trial(place, name, number, undisturbed.digests, count)
    assert count.problems == []
    record_property("refusals", count.refused.total())
    assert count.refused[name] >= 2


FLOW = """
import os
from random import Random
from engine import FlowSpec, step


class Large(FlowSpec):
    @step
    def start(self):
        self.seed = 7
        self.next(self.make)

    @step
    def make(self):
        self.data = Random(self.seed).randbytes(8_000_000)
        self.next(self.end)

    @step
    def end(self):
        self.size = len(self.data)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system")
def test_r08_an_artifact_too_large_for_the_disk_is_told_with_need_and_room(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "large.py").write_text(FLOW)
    place = Place(tmp_path)
    store = tmp_path / "store"
    store.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(store)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    request.addfinalizer(lambda: subprocess.run(["umount", "-l", str(store)], check=True))

    code, said = place.call("run", "large.py")

    assert code == 6
    assert f"cannot write to {store}/blobs: No space left on device" in said
    assert "8,000,000 bytes are needed, " in said
    room = int(said.partition("bytes are needed, ")[2].partition(" are free")[0].replace(",", ""))
    assert 0 < room < 4 << 20
    assert "hint: free some space" in said
    assert "resume: aflow resume" in said
    assert list(store.glob("blobs/tmp/*")) == []
    assert place.call("fsck", "--read-data")[0] == 0

    subprocess.run(["mount", "-o", "remount,size=32m", str(store)], check=True)
    code, said = place.call("resume")

    assert code == 0, said
    assert "reused" in said
    with Reader.at(str(store)) as reader:
        (run, _) = reader.runs("Large")
        (end,) = reader.tasks("Large", run.run_id, "end")
        assert reader.value(reader.entries(end)["size"]) == 8_000_000
    assert place.call("fsck", "--read-data")[0] == 0
