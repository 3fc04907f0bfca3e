"""S-11: other users of the machine see nothing, and can lead nobody astray by a name."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import StoreAccessError
from engine.stores.journals import JournalWriter
from engine.stores.layout import create_layout
from engine.stores.leases import Lease
from engine.stores.logs import LogWriter
from tests.cli.conftest import Call, aflow, variables  # noqa: F401  # a fixture
from tests.faults.vfs import read_trace, traced
from tests.unit.client.stored import succeeded

FLOW = """
from engine import FlowSpec, step


class Private(FlowSpec):
    @step
    def start(self):
        self.items = [bytes([i]) * 100_000 for i in range(2)]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        print("a line")
        self.big = self.input + b"x"
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
"""


def run(folder: Path, *words: str, umask: int = 0, **more: str) -> None:
    (folder / "private.py").write_text(FLOW)
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli.main", "run", "private.py", *words],
        cwd=folder,
        env=variables(folder / "store", **more),
        umask=umask,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_s11_what_a_run_leaves_is_its_owners_alone(tmp_path: Path, umask: int) -> None:
    run(tmp_path, umask=umask & 0o077)
    store = tmp_path / "store"
    modes = {p: stat.S_IMODE(p.lstat().st_mode) for p in [store, *store.rglob("*")]}
    assert len(modes) > 15
    wrong = {
        str(p): oct(mode) for p, mode in modes.items() if mode != (0o700 if p.is_dir() else 0o600)
    }
    assert wrong == {}


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_s11_a_run_uses_no_name_in_tmp_that_can_be_foretold(tmp_path: Path, isolation: str) -> None:
    made = []
    for number in range(2):
        folder = tmp_path / str(number)
        temporary = tmp_path / "tmp"
        temporary.mkdir(exist_ok=True)
        folder.mkdir()
        watched, trace = traced(temporary, folder)
        run(folder, "--isolation", isolation, TMPDIR=str(temporary), **watched)
        made.append({call.path for call in read_trace(trace) if call.kind in "cdml"})
        assert list(temporary.iterdir()) == []
    assert made[0] & made[1] == set()


def begin(folder: Path) -> None:
    with (
        Lease.acquire(str(folder / "lock"), run="Fan/R9", since_us=0) as lease,
        JournalWriter(str(folder / "journal"), lease),
    ):
        LogWriter(str(folder / "log")).close()


@pytest.mark.parametrize("name", ["journal", "log", "lock"])
def test_s11_a_link_that_waits_in_the_place_of_a_runs_file_is_not_followed(
    aflow: Call,  # noqa: F811  # the fixture
    datastore: Path,
    tmp_path: Path,
    name: str,
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    layout = create_layout(datastore)
    folder = layout.create_run("Fan", "R9")
    (folder / name).symlink_to(victim)
    with pytest.raises(StoreAccessError):
        begin(folder)
    assert victim.read_text() == "precious"


def test_s11_a_link_that_waits_in_the_place_of_a_blob_is_not_followed(
    aflow: Call,  # noqa: F811  # the fixture
    datastore: Path,
    tmp_path: Path,
) -> None:
    victim = tmp_path / "victim"
    succeeded(datastore, "R1", values=[{"x": b"y" * 5000}], n=1)
    (blob,) = datastore.glob("blobs/??/*")
    victim.write_bytes(blob.read_bytes())
    blob.unlink()
    blob.symlink_to(victim)
    assert aflow("dump", "R1/work/0/x").code == 6
    assert aflow("fsck").code == 6
    assert os.readlink(blob) == str(victim)
    assert victim.read_bytes() == b"y" * 5000
